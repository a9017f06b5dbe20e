//! Writes and assembles an archive for each of CUDA's libraries: every function of `symbols/` jumps through a table
//! whose entries ask the crate, once, where the real function is.
//!
//! The linker is told to look for `-lcuda` and the others here. Where a folder before holds the shared libraries
//! themselves, as that of a whole CUDA toolkit does, it may take those; the program then does not start without them.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Names for the linker, in the order of `Library` in src/library.rs.
const LIBRARIES: [&str; 5] = ["cuda", "cublasLt", "cublas", "curand", "nvrtc"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=symbols");
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    // Elsewhere the program is linked with the libraries themselves.
    if env::var_os("CARGO_FEATURE_LINK").is_none() || architecture != "x86_64" {
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for (index, library) in LIBRARIES.into_iter().enumerate() {
        let symbols = fs::read_to_string(Path::new("symbols").join(library)).expect("a list of symbols");
        let source = out.join(format!("{library}.S"));
        fs::write(&source, stand_ins(index, library, symbols.lines())).expect("OUT_DIR can be written");
        cc::Build::new().file(&source).cargo_metadata(false).compile(library);
    }
    runtime(&out);
    println!("cargo:rustc-link-search=native={}", out.display());
}

/// The runtime is linked into the program: `-lcudart` finds its archive under the name it asks for.
fn runtime(out: &Path) {
    let Some(home) = env::var_os("CUDA_HOME") else { return };
    for folder in ["lib", "lib64", "targets/x86_64-linux/lib"] {
        let archive = Path::new(&home).join(folder).join("libcudart_static.a");
        if archive.is_file() {
            fs::copy(archive, out.join("libcudart.a")).expect("OUT_DIR can be written");
            for library in ["rt", "dl", "pthread"] {
                println!("cargo:rustc-link-lib=dylib={library}");
            }
            return;
        }
    }
}

/// The assembler's text of one archive.
fn stand_ins<'a>(library: usize, name: &str, symbols: impl Iterator<Item = &'a str>) -> String {
    let symbols: Vec<_> = symbols.filter(|line| !line.is_empty()).collect();
    let mut text = String::from(".text\n");
    for (index, symbol) in symbols.iter().enumerate() {
        let _ = write!(
            text,
            ".globl {symbol}\n.type {symbol},@function\n{symbol}:\n  jmp *table_{name}+{offset}(%rip)\n\
             ask_{index}:\n  pushq ${index}\n  jmp ask\n",
            offset = 8 * index,
        );
    }
    text.push_str(&ask(library, name));
    let _ = write!(text, ".section .rodata\nnames:\n");
    for index in 0..symbols.len() {
        let _ = writeln!(text, "  .long name_{index}-names");
    }
    for (index, symbol) in symbols.iter().enumerate() {
        let _ = writeln!(text, "name_{index}: .asciz \"{symbol}\"");
    }
    let _ = write!(text, ".data\n.balign 8\ntable_{name}:\n");
    for index in 0..symbols.len() {
        let _ = writeln!(text, "  .quad ask_{index}");
    }
    text.push_str(".section .note.GNU-stack,\"\",@progbits\n");
    text
}

/// Keeps what arguments may be in, asks for the function whose index is on the stack, enters it into the table (an
/// aligned store, so that threads may do it together) and goes on there.
fn ask(library: usize, name: &str) -> String {
    let integers = ["rdi", "rsi", "rdx", "rcx", "r8", "r9", "rax"];
    let mut text = String::from("ask:\n  subq $192, %rsp\n");
    let moves = |text: &mut String, keep: bool| {
        for (index, register) in integers.iter().enumerate() {
            let (register, memory) = (format!("%{register}"), format!("{}(%rsp)", 8 * index));
            let (from, to) = if keep { (&register, &memory) } else { (&memory, &register) };
            let _ = writeln!(text, "  movq {from}, {to}");
        }
        for index in 0..8 {
            let (register, memory) = (format!("%xmm{index}"), format!("{}(%rsp)", 64 + 16 * index));
            let (from, to) = if keep { (&register, &memory) } else { (&memory, &register) };
            let _ = writeln!(text, "  movups {from}, {to}");
        }
    };
    moves(&mut text, true);
    let _ = write!(
        text,
        "  movl ${library}, %edi\n  movq 192(%rsp), %rax\n  leaq names(%rip), %rsi\n  movslq (%rsi,%rax,4), %rax\n\
         \x20 addq %rax, %rsi\n  call afterimage_cuda_function@PLT\n  movq %rax, %r11\n\
         \x20 movq 192(%rsp), %rax\n  leaq table_{name}(%rip), %r10\n  movq %r11, (%r10,%rax,8)\n",
    );
    moves(&mut text, false);
    text.push_str("  addq $200, %rsp\n  jmp *%r11\n");
    text
}
