//! Where NVIDIA's libraries are on a disk: named by a variable, known to the loader, in a toolkit,
//! or in a Python environment, where their wheels put them.
//!
//! Bounded: a few dozen folders are looked into, none is walked, no program is run. Must not know
//! what a library is for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

/// A library by its file names.
pub(crate) struct Wanted {
    /// Variable that names the file or its folder; nothing else is tried then.
    pub(crate) variable: Option<&'static str>,
    /// File names, best first, each with its folder under `site-packages/nvidia`.
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// Opened first when it lies beside: the library opens it by its short name.
    pub(crate) beside: Option<&'static str>,
}

/// The compiler. 12 first: what it makes runs on drivers for 12 and for 13.
pub(crate) const NVRTC: Wanted = Wanted {
    variable: Some("HEARTH_NVRTC"),
    files: &[("libnvrtc.so.12", "cuda_nvrtc/lib"), ("libnvrtc.so.13", "cu13/lib")],
    beside: Some("libnvrtc-builtins.so."),
};

/// Dense products. 13 first, as its binding does.
pub(crate) const CUBLASLT: Wanted = Wanted {
    variable: None,
    files: &[("libcublasLt.so.13", "cu13/lib"), ("libcublasLt.so.12", "cublas/lib")],
    beside: None,
};

/// An open library, and where it was found: its short name when the loader knew it.
pub(crate) struct Found {
    pub(crate) library: Library,
    pub(crate) path: PathBuf,
    /// Must stay open as long.
    _beside: Option<Library>,
}

/// Opens the best library that is found.
pub(crate) fn open(wanted: &Wanted) -> Option<Found> {
    open_all(wanted).into_iter().next()
}

/// Opens the first library of each name, best name first.
pub(crate) fn open_all(wanted: &Wanted) -> Vec<Found> {
    let named = wanted.variable.and_then(std::env::var_os).filter(|value| !value.is_empty());
    if let Some(named) = named {
        return named_files(wanted, Path::new(&named))
            .find_map(|p| load(wanted, p))
            .into_iter()
            .collect();
    }
    let folders = folders(|name| std::env::var_os(name));
    let prefixes = prefixes(|name| std::env::var_os(name));
    let mut all = Vec::new();
    for (file, package) in wanted.files {
        let packages =
            prefixes.iter().flat_map(|p| site_packages(p)).map(|p| p.join("nvidia").join(package));
        let found = std::iter::once(PathBuf::from(file))
            .chain(folders.iter().cloned().chain(packages).map(|folder| folder.join(file)))
            // Without a folder the loader looks for it.
            .filter(|path| path.parent() == Some(Path::new("")) || path.is_file())
            .find_map(|path| load(wanted, path));
        all.extend(found);
    }
    all
}

/// Files that a variable can mean.
fn named_files<'a>(wanted: &'a Wanted, named: &'a Path) -> impl Iterator<Item = PathBuf> + 'a {
    let inside =
        wanted.files.iter().map(|(file, _)| named.join(file)).filter(|path| path.is_file());
    named.is_file().then(|| named.to_path_buf()).into_iter().chain(inside)
}

fn load(wanted: &Wanted, path: PathBuf) -> Option<Found> {
    let beside = wanted.beside.and_then(|name| beside(&path, name));
    // Local: nothing else links against it, and two versions do not meet.
    // SAFETY: NVIDIA's library; opening it runs its constructors.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) }.ok()?;
    Some(Found { library, path, _beside: beside })
}

/// Opens the file beside `path` whose name begins so.
fn beside(path: &Path, name: &str) -> Option<Library> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""))?;
    let mut files: Vec<_> = std::fs::read_dir(folder).ok()?.flatten().map(|e| e.path()).collect();
    files.retain(|p| p.file_name().is_some_and(|f| f.to_string_lossy().starts_with(name)));
    files.sort();
    // SAFETY: as in `load`.
    files.iter().find_map(|p| unsafe { Library::open(Some(p), RTLD_NOW | RTLD_LOCAL) }.ok())
}

/// Folders with libraries of toolkits.
fn folders(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let toolkits = ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(|name| variable(name));
    let mut roots: Vec<PathBuf> = toolkits.map(PathBuf::from).collect();
    roots.push("/usr/local/cuda".into());
    // Newest first.
    let mut versions = children(Path::new("/usr/local"), "cuda-");
    versions.reverse();
    roots.extend(versions);
    roots.push("/opt/cuda".into());
    let arch = std::env::consts::ARCH;
    let mut folders: Vec<PathBuf> = roots
        .iter()
        .flat_map(|root| [root.join("lib64"), root.join(format!("targets/{arch}-linux/lib"))])
        .collect();
    folders.extend([format!("/usr/lib/{arch}-linux-gnu").into(), "/usr/lib64".into()]);
    folders
}

/// Where Python environments are.
fn prefixes(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let active = ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(|name| variable(name));
    let mut prefixes: Vec<PathBuf> = active.map(PathBuf::from).collect();
    prefixes.extend(variable("HOME").map(|home| Path::new(&home).join(".local")));
    prefixes.extend(["/usr/local", "/usr", "/opt/venv", "/opt/conda"].map(PathBuf::from));
    prefixes
}

/// `lib/python3.x/site-packages` of a prefix.
fn site_packages(prefix: &Path) -> Vec<PathBuf> {
    let libs = ["lib", "lib64"].map(|lib| prefix.join(lib));
    let pythons = libs.iter().flat_map(|lib| children(lib, "python3"));
    pythons.flat_map(|p| [p.join("site-packages"), p.join("dist-packages")]).collect()
}

/// Folders in a folder whose names begin so, sorted.
fn children(folder: &Path, name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(name))
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments_and_toolkits_come_first() {
        let variable = |name: &str| match name {
            "VIRTUAL_ENV" => Some("/env".into()),
            "HOME" => Some("/home/a".into()),
            "CUDA_HOME" => Some("/toolkit".into()),
            _ => None,
        };
        let prefixes = prefixes(variable);
        assert_eq!(prefixes[..2], [PathBuf::from("/env"), PathBuf::from("/home/a/.local")]);
        assert_eq!(folders(variable)[0], PathBuf::from("/toolkit/lib64"));
    }

    #[test]
    fn a_variable_names_a_file_or_its_folder() {
        let folder = std::env::temp_dir().join(format!("hearth-search-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("libnvrtc.so.12");
        std::fs::write(&file, b"not a library").unwrap();
        let named = |path: &Path| named_files(&NVRTC, path).collect::<Vec<_>>();
        assert_eq!(named(&folder), [file.as_path()]);
        assert_eq!(named(&file), [file.as_path()]);
        assert_eq!(named(&folder.join("absent")), [] as [PathBuf; 0]);
        assert!(load(&NVRTC, file).is_none(), "it is not a library");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
