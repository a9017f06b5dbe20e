//! Finding libraries and the functions in them.

use std::env;
use std::error::Error;
use std::ffi::{CStr, c_char, c_void};
use std::path::PathBuf;
use std::sync::OnceLock;

use libloading::os::unix::{Library as Handle, RTLD_GLOBAL, RTLD_NOW};

use crate::Library;

/// A library that could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{file} cannot be opened ({reason}); {source_of_it}")]
pub struct MissingLibrary {
    file: &'static str,
    /// What the system said.
    reason: String,
    source_of_it: &'static str,
}

/// Opens the libraries that every device needs.
///
/// # Errors
/// The first that is missing.
pub fn require() -> Result<(), MissingLibrary> {
    let needed = [Library::Driver, Library::CublasLt, Library::Cublas, Library::Curand];
    needed.into_iter().try_for_each(|library| opened(library).map(|_| ()))
}

/// The library, opened once for the life of the program.
fn opened(library: Library) -> Result<&'static Handle, MissingLibrary> {
    static OPENED: [OnceLock<Result<Handle, MissingLibrary>>; Library::ALL.len()] =
        [const { OnceLock::new() }; Library::ALL.len()];
    let open = || open(library);
    OPENED[library as usize].get_or_init(open).as_ref().map_err(Clone::clone)
}

/// Opens it where the system looks for libraries, else in a toolkit.
fn open(library: Library) -> Result<Handle, MissingLibrary> {
    let file = library.file();
    let first = match open_file(file.into()) {
        Ok(handle) => return Ok(handle),
        Err(error) => error,
    };
    let in_toolkit = toolkits().into_iter().map(|folder| folder.join(file)).filter(|path| path.is_file());
    let found = in_toolkit.map(open_file).find_map(Result::ok);
    let missing = || MissingLibrary { file, reason: said(&first), source_of_it: library.source() };
    found.ok_or_else(missing)
}

/// What the system said, which the error keeps as its source.
fn said(error: &libloading::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Folders of libraries of CUDA toolkits, best first.
fn toolkits() -> Vec<PathBuf> {
    let named = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    let roots = named.chain(["/usr/local/cuda".into()]);
    roots.flat_map(|root| ["lib64", "lib", "targets/x86_64-linux/lib"].map(|folder| root.join(folder))).collect()
}

fn open_file(path: PathBuf) -> Result<Handle, libloading::Error> {
    // SAFETY: opening runs the library's initialisers. It is a library of NVIDIA's, by its name, whose initialisers may
    // run in any program; one that somebody else put into its place could as well have replaced this program. Its
    // symbols are global so that the libraries of a toolkit find each other wherever they lie.
    unsafe { Handle::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }
}

/// Where the function `name` of a library is, for the archives of the build script: never null. A function that is
/// nowhere answers that it failed.
///
/// # Safety
/// `library` is an index into [`Library::ALL`], and `name` a string that ends.
#[unsafe(no_mangle)]
unsafe extern "C" fn afterimage_cuda_function(library: usize, name: *const c_char) -> *const c_void {
    let library = Library::ALL[library];
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    let found = opened(library).ok().and_then(|handle| {
        // SAFETY: the address is only handed on, to a caller that knows the function's type.
        unsafe { handle.get::<*const c_void>(name.to_bytes_with_nul()) }.ok()
    });
    match found {
        Some(function) if !function.is_null() => *function,
        _ => library.failure() as *const c_void,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_source() {
        let missing = MissingLibrary {
            file: Library::Driver.file(),
            reason: "no such file".to_owned(),
            source_of_it: Library::Driver.source(),
        };
        let message = missing.to_string();
        assert!(message.contains("libcuda.so.1") && message.contains("driver"), "{message}");
    }

    #[test]
    fn a_function_that_is_nowhere_fails() {
        for library in Library::ALL {
            // SAFETY: the index and a string that ends; the function takes no arguments.
            let status = unsafe {
                let function = afterimage_cuda_function(library as usize, c"afterimage_has_no_such_function".as_ptr());
                std::mem::transmute::<*const c_void, unsafe extern "C" fn() -> i32>(function)()
            };
            assert_ne!(status, 0, "{library:?}");
        }
    }
}
