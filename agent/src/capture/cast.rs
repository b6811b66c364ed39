//! `bpf_rdonly_cast`, with which programs read the kernel's memory by a load instead of a helper's call (6.2 and newer): a function of
//! the kernel that is called by its number in the kernel's BTF, which the loader knows nothing of.
//!
//! The programs call a helper that does not exist. Where the kernel has the function, its number takes that place; elsewhere the layout
//! says so, and the verifier never comes to the call.

use spanlet_abi::layout::RDONLY_CAST;

/// The function's name in BTF.
pub const FUNCTION: &str = "bpf_rdonly_cast";

/// Size of an instruction (linux/bpf.h, `struct bpf_insn`).
const INSTRUCTION_BYTES: usize = 8;
/// `BPF_JMP | BPF_CALL`
const CALL: u8 = 0x85;
/// `BPF_PSEUDO_KFUNC_CALL` as source register, which is the upper half of its byte.
const OF_KERNEL_FUNCTION: u8 = 2 << 4;

/// The object with calls of the function that has this number. Instructions of an ELF file stand at multiples of eight.
pub fn with_function(object: &[u8], number: u32) -> Vec<u8> {
    let placeholder = call(0, RDONLY_CAST);
    let call = call(OF_KERNEL_FUNCTION, number);
    let mut object = object.to_vec();
    for instruction in object.chunks_exact_mut(INSTRUCTION_BYTES).filter(|instruction| **instruction == placeholder) {
        instruction.copy_from_slice(&call);
    }
    object
}

fn call(registers: u8, number: u32) -> [u8; INSTRUCTION_BYTES] {
    let [a, b, c, d] = number.to_le_bytes();
    [CALL, registers, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_replaced_and_nothing_else() {
        let exit = [0x95, 0, 0, 0, 0, 0, 0, 0];
        let object = [call(0, 6), call(0, RDONLY_CAST), exit, call(0, RDONLY_CAST)].concat();
        let expected = [call(0, 6), call(0x20, 70_000), exit, call(0x20, 70_000)].concat();
        assert_eq!(with_function(&object, 70_000), expected);
    }

    #[test]
    fn the_programs_have_such_calls() {
        let object = super::super::attach::OBJECT;
        let differing = object.iter().zip(with_function(object, 1)).filter(|(before, after)| *before != after).count();
        assert!(differing >= 2 * INSTRUCTION_BYTES, "{differing} bytes differ");
    }
}
