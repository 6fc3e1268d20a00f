//! What NVIDIA's management library says about the GPUs of this machine. Without the library
//! (no driver, a container without it) there are simply no such series.

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use prometheus::{GaugeVec, Opts, Registry};
use serde::{Deserialize, Serialize};

use super::register;

/// What a GPU does now; `None`: it does not tell. Nodes tell gateways the same in these words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuReading {
    /// Its place in its machine, from 0.
    pub index: u32,
    /// What no other GPU is called.
    pub uuid: String,
    /// What the maker calls its kind.
    pub name: String,
    /// Share of time with a kernel on it, at most 100.
    pub busy_percent: Option<u32>,
    /// Device memory in use.
    pub memory_used_bytes: Option<u64>,
    /// Device memory.
    pub memory_total_bytes: Option<u64>,
    /// Temperature of the die.
    pub celsius: Option<u32>,
    /// Power drawn.
    pub milliwatts: Option<u32>,
}

impl GpuReading {
    /// Its values of the labels `gpu`, `uuid` and `name`.
    pub(super) fn labels(&self) -> [String; 3] {
        [self.index.to_string(), self.uuid.clone(), self.name.clone()]
    }
}

/// Series of GPUs, of this machine or of others.
pub(super) struct Series {
    utilization: GaugeVec,
    memory_used: GaugeVec,
    memory_total: GaugeVec,
    temperature: GaugeVec,
    power: GaugeVec,
}

impl Series {
    /// Their names begin with `prefix`.
    pub(super) fn new(registry: &Registry, prefix: &str, labels: &[&str]) -> Self {
        let add = |name: &str, help: &str| {
            let vec = GaugeVec::new(Opts::new(format!("{prefix}_{name}"), help), labels);
            let vec = vec.expect("a valid metric");
            register(registry, vec.clone());
            vec
        };
        Self {
            utilization: add("utilization_ratio", "Share of time with a kernel on it."),
            memory_used: add("memory_used_bytes", "Device memory in use."),
            memory_total: add("memory_total_bytes", "Device memory."),
            temperature: add("temperature_celsius", "Temperature of the die."),
            power: add("power_watts", "Power drawn."),
        }
    }

    /// Shows a reading; what it does not tell has no series.
    #[allow(clippy::cast_precision_loss, reason = "bytes of device memory are below 2^53")]
    pub(super) fn show(&self, labels: &[&str], reading: &GpuReading) {
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
        let figures = [
            (&self.utilization, reading.busy_percent.map(|busy| f64::from(busy) / 100.0)),
            (&self.memory_used, bytes(reading.memory_used_bytes)),
            (&self.memory_total, bytes(reading.memory_total_bytes)),
            (&self.temperature, reading.celsius.map(f64::from)),
            (&self.power, reading.milliwatts.map(|power| f64::from(power) / 1000.0)),
        ];
        for (series, figure) in figures {
            match figure {
                Some(figure) => series.with_label_values(labels).set(figure),
                None => drop(series.remove_label_values(labels)),
            }
        }
    }

    /// Ends a GPU's series.
    pub(super) fn hide(&self, labels: &[&str]) {
        self.show(labels, &GpuReading::default());
    }
}

/// The GPUs of this machine.
pub(super) struct Gpus {
    nvml: Option<Nvml>,
    series: Series,
}

impl Gpus {
    pub(super) fn new(registry: &Registry) -> Self {
        let nvml = Nvml::init();
        if let Err(error) = &nvml {
            tracing::debug!(%error, "no NVML: no GPU metrics");
        }
        Self {
            nvml: nvml.ok(),
            series: Series::new(registry, "hearth_gpu", &["gpu", "uuid", "name"]),
        }
    }

    /// What each GPU does now, those left out that do not answer.
    pub(super) fn read(&self) -> Vec<GpuReading> {
        let Some(nvml) = &self.nvml else { return Vec::new() };
        let all = 0..nvml.device_count().unwrap_or(0);
        let read = |index| match nvml.device_by_index(index).and_then(|gpu| read(index, &gpu)) {
            Ok(reading) => Some(reading),
            Err(error) => {
                tracing::debug!(index, %error, "a GPU's figures could not be read");
                None
            }
        };
        all.filter_map(read).collect()
    }

    /// Reads the figures of every GPU. One that does not answer keeps its last figures.
    pub(super) fn refresh(&self) {
        for reading in self.read() {
            let labels = reading.labels();
            self.series.show(&labels.each_ref().map(String::as_str), &reading);
        }
    }
}

/// A figure that this kind of GPU does not have is left out.
fn read(index: u32, gpu: &Device<'_>) -> Result<GpuReading, NvmlError> {
    let memory = gpu.memory_info().ok();
    Ok(GpuReading {
        index,
        uuid: gpu.uuid()?,
        name: gpu.name()?,
        busy_percent: gpu.utilization_rates().ok().map(|rates| rates.gpu.min(100)),
        memory_used_bytes: memory.as_ref().map(|memory| memory.used.min(memory.total)),
        memory_total_bytes: memory.as_ref().map(|memory| memory.total),
        celsius: gpu.temperature(TemperatureSensor::Gpu).ok(),
        milliwatts: gpu.power_usage().ok(),
    })
}
