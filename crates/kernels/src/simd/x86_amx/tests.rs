//! The assembly of [`Amx`](super::Amx), run where there is no such unit: its instructions are unknown to the CPU, and a handler
//! of the signal for that does what they say, read from their bytes.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::mem::{MaybeUninit, zeroed};
use std::ptr::null_mut;

use super::super::tiles::{bf16_step, int8_step};
use super::*;

/// The registers of this thread.
#[derive(Clone, Copy)]
struct Unit {
    /// Bytes of a row, and rows, of each; 0 before they are set up.
    shapes: [(usize, usize); 8],
    registers: [[[u8; STEP_BYTES]; SIDE]; 8],
}

thread_local! {
    // Made before the first instruction, so that the handler asks for no memory.
    static UNIT: UnsafeCell<Unit> =
        const { UnsafeCell::new(Unit { shapes: [(0, 0); 8], registers: [[[0; STEP_BYTES]; SIDE]; 8] }) };
}

/// An instruction with a VEX prefix of three bytes, of those that AMX has.
struct Instruction {
    /// 1 is 66, 2 F3, 3 F2.
    prefix: u8,
    opcode: u8,
    is_register: bool,
    destination: usize,
    /// Of a product, the second and the third.
    operands: (usize, usize),
    /// Address, and what is added from row to row.
    memory: (usize, usize),
    length: usize,
}

impl Instruction {
    /// # Safety
    /// `code` points to an instruction.
    unsafe fn read(code: *const u8, registers: &[i64; 16]) -> Option<Self> {
        // SAFETY: by the conditions of this function; no instruction of these is longer than what is read of it.
        let byte = |index: usize| unsafe { *code.add(index) };
        // The map 0F38, and no wide operands.
        if byte(0) != 0xC4 || byte(1) & 0x1F != 2 || byte(2) & 0x84 != 0 {
            return None;
        }
        let extended = |bit: u8| if byte(1) & bit == 0 { 8 } else { 0 };
        let (modrm, mut length) = (byte(4), 5);
        let (mode, register, low) = (modrm >> 6, usize::from(modrm >> 3 & 7), usize::from(modrm & 7));
        let mut memory = (0, 0);
        if mode != 3 {
            let value = |register: usize| registers[register] as usize;
            if low == 4 {
                let sib = byte(length);
                length += 1;
                let index = usize::from(sib >> 3 & 7) + extended(0x40);
                let stride = if index == 4 { 0 } else { value(index) << (sib >> 6) };
                memory = (value(usize::from(sib & 7) + extended(0x20)), stride);
            } else {
                memory.0 = value(low + extended(0x20));
            }
            let displacement: i32 = match mode {
                1 => i32::from(byte(length) as i8),
                2 => i32::from_le_bytes([byte(length), byte(length + 1), byte(length + 2), byte(length + 3)]),
                _ => 0,
            };
            length += [0, 1, 4][usize::from(mode)];
            memory.0 = memory.0.wrapping_add_signed(displacement as isize);
        }
        Some(Self {
            prefix: byte(2) & 3,
            opcode: byte(3),
            is_register: mode == 3,
            destination: register,
            operands: (low, usize::from(!byte(2) >> 3 & 0xF)),
            memory,
            length,
        })
    }
}

impl Unit {
    /// Does what an instruction says, or answers that it is none.
    ///
    /// # Safety
    /// What it reads and writes is there.
    unsafe fn run(&mut self, code: &Instruction) -> bool {
        let (base, stride) = code.memory;
        let row = |row: usize| (base + row * stride) as *mut u8;
        let (row_bytes, rows) = self.shapes[code.destination];
        match (code.prefix, code.opcode, code.is_register) {
            // ldtilecfg
            (0, 0x49, false) => {
                // SAFETY: by the conditions of this function.
                let shapes = unsafe { &*(base as *const Shapes) };
                assert!(shapes.palette == 1 && shapes.start_row == 0 && shapes.reserved == [0; 14], "palette");
                assert!(shapes.row_bytes[8..] == [0; 8] && shapes.rows[8..] == [0; 8], "registers that do not exist");
                for (register, shape) in self.shapes.iter_mut().enumerate() {
                    *shape = (usize::from(shapes.row_bytes[register]), usize::from(shapes.rows[register]));
                    assert!(shape.0 <= STEP_BYTES && shape.1 <= SIDE && (shape.0 == 0) == (shape.1 == 0), "{shape:?}");
                }
                self.registers = [[[0; STEP_BYTES]; SIDE]; 8];
            }
            // tilerelease
            (0, 0x49, true) => self.shapes = [(0, 0); 8],
            // tilezero
            (3, 0x49, true) => self.written(code.destination).fill([0; STEP_BYTES]),
            // tileloadd
            (3, 0x4B, false) => {
                for (index, place) in self.written(code.destination).iter_mut().enumerate().take(rows) {
                    // SAFETY: by the conditions of this function.
                    unsafe { row(index).copy_to_nonoverlapping(place.as_mut_ptr(), row_bytes) };
                }
            }
            // tilestored
            (2, 0x4B, false) => {
                assert!(rows > 0, "a register that was not set up");
                for (index, values) in self.registers[code.destination].iter().enumerate().take(rows) {
                    // SAFETY: by the conditions of this function.
                    unsafe { row(index).copy_from_nonoverlapping(values.as_ptr(), row_bytes) };
                }
            }
            // tdpbf16ps, tdpbusd
            (2, 0x5C, true) | (1, 0x5E, true) => self.multiply(code),
            _ => return false,
        }
        true
    }

    /// A register that is written as a whole: rows that it does not have become 0.
    fn written(&mut self, register: usize) -> &mut [[u8; STEP_BYTES]; SIDE] {
        assert!(self.shapes[register].1 > 0, "register {register} was not set up");
        self.registers[register] = [[0; STEP_BYTES]; SIDE];
        &mut self.registers[register]
    }

    fn multiply(&mut self, code: &Instruction) {
        let (sums, (a, b)) = (code.destination, code.operands);
        assert!(sums != a && sums != b && a != b, "registers of a product are three");
        let [of_sums, of_a, of_b] = [sums, a, b].map(|register| self.shapes[register]);
        assert!(of_sums.1 == of_a.1 && of_sums.0 == of_b.0 && of_a.0 == 4 * of_b.1, "{of_sums:?} {of_a:?} {of_b:?}");
        let (a, b) = (self.registers[a], self.registers[b]);
        for (row, column) in (0..of_sums.1).flat_map(|row| (0..SIDE).map(move |column| (row, column))) {
            let groups = |group: usize| {
                let of = |bytes: &[u8; STEP_BYTES], index: usize| std::array::from_fn(|byte| bytes[4 * index + byte]);
                (of(&a[row], group), of(&b[group], column))
            };
            let place = &mut self.registers[sums][row][4 * column..4 * column + 4];
            let before = [place[0], place[1], place[2], place[3]];
            place.copy_from_slice(&match code.opcode {
                0x5C => (f32::from_le_bytes(before) + bf16_step(groups)).to_le_bytes(),
                _ => i32::from_le_bytes(before).wrapping_add(int8_step(groups)).to_le_bytes(),
            });
        }
    }
}

/// Does what the instruction that the CPU did not know says, and goes on behind it.
extern "C" fn on_unknown_instruction(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system gives a handler with SA_SIGINFO such a context; the instruction is one of ours, whose memory is there; and
    // nothing else on this thread is in the middle of an instruction.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let order = [
            libc::REG_RAX,
            libc::REG_RCX,
            libc::REG_RDX,
            libc::REG_RBX,
            libc::REG_RSP,
            libc::REG_RBP,
            libc::REG_RSI,
            libc::REG_RDI,
            libc::REG_R8,
            libc::REG_R9,
            libc::REG_R10,
            libc::REG_R11,
            libc::REG_R12,
            libc::REG_R13,
            libc::REG_R14,
            libc::REG_R15,
        ];
        let code = registers[libc::REG_RIP as usize] as *const u8;
        let instruction = Instruction::read(code, &order.map(|register| registers[register as usize]));
        let done = instruction.filter(|code| UNIT.with(|unit| (*unit.get()).run(code)));
        let Some(done) = done else { libc::abort() };
        registers[libc::REG_RIP as usize] += done.length as i64;
    }
}

/// Calls `work` with a unit whose instructions are run by the handler.
fn with_unit(work: impl FnOnce(Amx)) {
    // SAFETY: the handler is a function of the kind that SA_SIGINFO wants. Other threads do not meet unknown instructions.
    let before = unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = on_unknown_instruction as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        let mut before = MaybeUninit::uninit();
        assert_eq!(libc::sigaction(libc::SIGILL, &raw const action, before.as_mut_ptr()), 0);
        before.assume_init()
    };
    work(Amx(()));
    // SAFETY: it is what was there.
    assert_eq!(unsafe { libc::sigaction(libc::SIGILL, &raw const before, null_mut()) }, 0);
}

#[test]
fn assembly_multiplies_as_it_is_defined() {
    let values: Vec<u8> = (0..40 * 1024).map(|index: usize| (index * 31 % 251) as u8).collect();
    // Of bf16, the upper byte decides how large they are.
    let narrow: Vec<u8> =
        values.chunks_exact(2).flat_map(|pair| half::bf16::from(pair[0] as i8).to_le_bytes()).collect();
    with_unit(|amx| {
        for what in [Tiled::Bf16, Tiled::Int8] {
            assert!(amx.is_right(what), "{what:?}");
            let bytes = if what == Tiled::Bf16 { &narrow } else { &values };
            let (a, b) = bytes.split_at(20 * 1024);
            for (rows, steps) in [1, 5, 15, 16, 17, 31, 32].into_iter().flat_map(|rows| [0, 1, 3].map(|s| (rows, s))) {
                // Where they lie, and side by side.
                for (row, step) in [(steps * STEP_BYTES + 64, STEP_BYTES), (STEP_BYTES, SUMMED_SIDE * STEP_BYTES)] {
                    let place = TileRows { first: a.as_ptr(), row, step };
                    let mut sums = [[7f32; SUMMED_SIDE * SUMMED_SIDE]; 2];
                    // SAFETY: A and B are longer than any of these is.
                    unsafe {
                        amx.multiply(what, place, b.as_ptr(), steps, rows, sums[0].as_mut_ptr());
                        TileArrays.multiply(what, place, b.as_ptr(), steps, rows, sums[1].as_mut_ptr());
                    }
                    assert!(sums[0].map(f32::to_bits) == sums[1].map(f32::to_bits), "{what:?} {rows} {steps} {row}");
                }
            }
            amx.repeat(what, 3);
        }
    });
}
