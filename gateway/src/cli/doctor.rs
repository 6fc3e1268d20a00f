//! `hearth doctor`: looks at this machine as a server would use it, and says what to change.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use govern::Fsync;
use nvml_wrapper::Nvml;

use super::exit::{self, Outcome};
use crate::config::values::{physical_cores, show_size};
use crate::config::{Config, Flags};
use crate::pull::Hub;
use crate::wiring::{Target, gpu};
use crate::{machine, wiring};

/// Times that a page is brought to the disk.
const FLUSHES: usize = 32;

/// A disk that takes longer keeps every answer waiting.
const SLOW_FLUSH: Duration = Duration::from_millis(5);

/// Flags of `hearth doctor`: those of `hearth serve`, to check what it would use.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run every kernel case on the GPU and compare with plain references: some minutes
    #[arg(long)]
    gpu: bool,
    #[command(flatten)]
    flags: Flags,
}

/// What is found, one line each, and what to do.
#[derive(Default)]
struct Findings {
    text: String,
    problems: usize,
}

impl Findings {
    fn good(&mut self, what: &str, text: &str) {
        self.text.push_str(&format!("  ok    {what:<9} {text}\n"));
    }

    fn note(&mut self, what: &str, text: &str, advice: &str) {
        self.text.push_str(&format!("  note  {what:<9} {text}\n                  -> {advice}\n"));
    }

    fn bad(&mut self, what: &str, text: &str, advice: &str) {
        self.problems += 1;
        self.text.push_str(&format!("  BAD   {what:<9} {text}\n                  -> {advice}\n"));
    }
}

/// Prints the findings.
///
/// # Errors
/// Something is there that keeps `hearth serve` from starting: exit code 78.
pub fn run(args: &Args) -> Outcome {
    let mut found = Findings::default();
    let config = match Config::load(&args.flags, std::env::vars()) {
        Ok(loaded) => {
            let from = loaded.file.map_or("defaults".into(), |path| path.display().to_string());
            found.good("config", &format!("{from}, the environment and flags are sound"));
            loaded.warnings.iter().for_each(|text| found.note("config", text, "rename it"));
            loaded.config
        }
        Err(error) => {
            found.bad("config", &error.to_string(), "docs/config.md lists every option");
            Config::defaults()
        }
    };
    cpu(&mut found, &config);
    memory(&mut found);
    files(&mut found);
    driver(&mut found, &config, args.gpu);
    cache(&mut found);
    disk(&mut found, &config);
    port(&mut found, &config);
    exit::print(&found.text)?;
    match found.problems {
        0 => exit::print("hearth serve can start here.\n"),
        n => Err(exit::environment(format!("{n} of these keep hearth serve from starting well"))),
    }
}

fn cpu(found: &mut Findings, config: &Config) {
    let cores = physical_cores();
    let isa = machine::instruction_sets();
    let text = format!("{cores} cores usable, {} threads, {}", config.threads(), isa.join(" "));
    if isa.is_empty() || (cfg!(target_arch = "x86_64") && !isa.contains(&"avx2")) {
        found.note("cpu", &text, "without AVX2 models run slowly; choose a newer machine type");
    } else if config.threads() > cores {
        found.note("cpu", &text, "more threads than cores wait for each other; lower --threads");
    } else {
        found.good("cpu", &text);
    }
}

fn memory(found: &mut Findings) {
    // The smaller of what the machine and what the cgroups around this process leave.
    let free = wiring::memory_available();
    let text = format!("{} at hand", show_size(free));
    if free == u64::MAX {
        found.note("memory", "cannot be read", "is /proc mounted?");
    } else if free < 1 << 30 {
        found.bad("memory", &text, "end other programs, or raise the container's memory limit");
    } else {
        found.good("memory", &text);
    }
}

fn files(found: &mut Findings) {
    let Some(most) = machine::open_files_limit() else { return };
    let text = format!("{most} may be open");
    if most < 4096 {
        let advice = "each connection takes one: `ulimit -n 65536`, or LimitNOFILE= in the unit";
        found.note("files", &text, advice);
    } else {
        found.good("files", &text);
    }
}

fn driver(found: &mut Findings, config: &Config, cases: bool) {
    let driver = machine::cuda_driver();
    let gpus = Nvml::init().and_then(|nvml| {
        let names = (0..nvml.device_count()?).map(|i| nvml.device_by_index(i)?.name());
        let names = names.collect::<Result<Vec<_>, _>>()?;
        Ok((nvml.sys_driver_version()?, names))
    });
    match (driver, gpus) {
        (Ok(_), Ok((version, names))) => {
            found.good("gpu", &format!("driver {version}: {}", names.join(", ")));
        }
        (Ok(path), Err(error)) => {
            let advice = "mount libnvidia-ml.so.1 (NVIDIA container toolkit) to get GPU metrics";
            found.note("gpu", &format!("{}, but no NVML: {error}", path.display()), advice);
        }
        (Err(why), _) => {
            let advice = "models run on the CPU; for a GPU install NVIDIA's driver, in a \
                          container start it with --gpus all";
            found.note("gpu", &format!("none: {why}"), advice);
        }
    }
    card(found, config, cases);
}

/// The card as models would use it.
fn card(found: &mut Findings, config: &Config, cases: bool) {
    let target = match Target::choose(config) {
        Ok(target) => target,
        Err(error) => return found.bad("cuda", &error.to_string(), "see --device"),
    };
    if let Target::Cpu(Some(why)) = &target
        && machine::cuda_driver().is_ok()
    {
        found.bad("cuda", why, "models would run on the CPU");
    }
    match gpu::measure(&target) {
        Ok(lines) => lines.iter().for_each(|line| found.good("cuda", line)),
        Err(why) => found.bad("cuda", &why, "see `nvidia-smi` and the kernel log"),
    }
    if cases {
        let advice = match target {
            Target::Gpu(_) => "do not serve from this card with this build",
            Target::Cpu(_) => "--gpu is for a machine with a card",
        };
        match gpu::check_kernels(&target) {
            Ok(text) => found.good("kernels", &text),
            Err(why) => found.bad("kernels", &why, advice),
        }
    }
}

fn cache(found: &mut Findings) {
    let hub = Hub::from_env(|name| std::env::var(name).ok());
    let path = hub.cache();
    let free = machine::free_disk(path).map_or("unknown".to_owned(), show_size);
    let models = std::fs::read_dir(path).into_iter().flatten().flatten();
    let count =
        models.filter(|entry| entry.file_name().to_string_lossy().starts_with("models--")).count();
    let text = format!("{}: {count} models, {free} free", path.display());
    if is_writable(path) {
        found.good("cache", &text);
    } else {
        found.note("cache", &text, "not writable: set HF_HUB_CACHE to a directory of yours");
    }
}

/// Whether a file can be made in the nearest directory that is there.
fn is_writable(path: &Path) -> bool {
    let Some(there) = path.ancestors().find(|path| path.is_dir()) else { return false };
    let probe = there.join(format!(".hearth-{}", std::process::id()));
    let made = std::fs::write(&probe, b"").is_ok();
    let _ = std::fs::remove_file(probe);
    made
}

/// The disk of the books: the last byte of each answer waits for it.
fn disk(found: &mut Findings, config: &Config) {
    let Some(data) = &config.data else { return };
    match flush_times(data) {
        Ok([median, slowest]) => {
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            let free = machine::free_disk(data).map_or("unknown".to_owned(), show_size);
            let text = format!(
                "{}: flushed in {:.2} ms, slowest of {FLUSHES} {:.2} ms, {free} free",
                data.display(),
                ms(median),
                ms(slowest)
            );
            if median > SLOW_FLUSH && config.fsync == Fsync::Always {
                let advice = "each answer waits for that: put --data on a local SSD, or see \
                              store.fsync in docs/config.md";
                found.note("disk", &text, advice);
            } else {
                found.good("disk", &text);
            }
        }
        Err(error) => {
            let text = format!("{}: {error}", data.display());
            found.bad("disk", &text, "what is spent is kept there: give it a folder of its own");
        }
    }
}

/// How long a page takes to be on the disk of a folder, or of the nearest one above it that is
/// there: as a rule, and at worst.
fn flush_times(folder: &Path) -> io::Result<[Duration; 2]> {
    let there = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let probe = there.join(format!(".hearth-{}", std::process::id()));
    let file = File::create(&probe)?;
    let page = [0; 4096];
    let times = (0..=FLUSHES).map(|_| {
        let began = Instant::now();
        file.write_all_at(&page, 0)?;
        file.sync_data().map(|()| began.elapsed())
    });
    let times = times.collect::<io::Result<Vec<Duration>>>();
    let _ = std::fs::remove_file(probe);
    // The first makes the file.
    let mut times = times?.split_off(1);
    times.sort_unstable();
    Ok([times[FLUSHES / 2], times[FLUSHES - 1]])
}

fn port(found: &mut Findings, config: &Config) {
    match TcpListener::bind(config.listen) {
        Ok(_) => found.good("port", &format!("{} is free", config.listen)),
        Err(error) => {
            let text = format!("{}: {error}", config.listen);
            found.bad("port", &text, "end what listens there (`ss -ltnp`), or choose --listen");
        }
    }
}
