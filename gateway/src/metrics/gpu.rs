//! What NVIDIA's management library says about the GPUs of this machine. Without the library
//! (no driver, a container without it) there are simply no such series.

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use prometheus::{GaugeVec, Opts, Registry};

use super::register;

/// The GPUs' series, or nothing.
pub(super) struct Gpus(Option<Found>);

struct Found {
    nvml: Nvml,
    utilization: GaugeVec,
    memory_used: GaugeVec,
    memory_total: GaugeVec,
    temperature: GaugeVec,
    power: GaugeVec,
}

impl Gpus {
    pub(super) fn new(registry: &Registry) -> Self {
        let nvml = match Nvml::init() {
            Ok(nvml) => nvml,
            Err(error) => {
                tracing::debug!(%error, "no NVML: no GPU metrics");
                return Self(None);
            }
        };
        let add = |name: &str, help: &str| {
            let vec = GaugeVec::new(Opts::new(name, help), &["gpu", "uuid", "name"]);
            let vec = vec.expect("a valid metric");
            register(registry, vec.clone());
            vec
        };
        Self(Some(Found {
            nvml,
            utilization: add("hearth_gpu_utilization_ratio", "Share of time with a kernel on it."),
            memory_used: add("hearth_gpu_memory_used_bytes", "Device memory in use."),
            memory_total: add("hearth_gpu_memory_total_bytes", "Device memory."),
            temperature: add("hearth_gpu_temperature_celsius", "Temperature of the die."),
            power: add("hearth_gpu_power_watts", "Power drawn."),
        }))
    }

    /// Reads the figures of every GPU. One that does not answer keeps its last figures.
    pub(super) fn refresh(&self) {
        if let Some(found) = &self.0 {
            for index in 0..found.nvml.device_count().unwrap_or(0) {
                if let Err(error) = found.read(index) {
                    tracing::debug!(index, %error, "a GPU's figures could not be read");
                }
            }
        }
    }
}

impl Found {
    #[allow(clippy::cast_precision_loss, reason = "bytes of device memory are below 2^53")]
    fn read(&self, index: u32) -> Result<(), nvml_wrapper::error::NvmlError> {
        let device = self.nvml.device_by_index(index)?;
        let (uuid, name) = (device.uuid()?, device.name()?);
        let number = index.to_string();
        let labels = &[number.as_str(), uuid.as_str(), name.as_str()];
        let memory = device.memory_info()?;
        self.memory_used.with_label_values(labels).set(memory.used as f64);
        self.memory_total.with_label_values(labels).set(memory.total as f64);
        let busy = device.utilization_rates()?.gpu;
        self.utilization.with_label_values(labels).set(f64::from(busy) / 100.0);
        let celsius = device.temperature(TemperatureSensor::Gpu)?;
        self.temperature.with_label_values(labels).set(f64::from(celsius));
        let milliwatts = device.power_usage()?;
        self.power.with_label_values(labels).set(f64::from(milliwatts) / 1000.0);
        Ok(())
    }
}
