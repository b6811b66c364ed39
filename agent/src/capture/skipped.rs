//! Program runs that the kernel skipped, as the program's file descriptor tells them. Reading it is no `bpf()` call.

use std::os::fd::RawFd;

/// `recursion_misses` of a program; 0 on kernels before 6.1, which do not tell.
pub fn runs_of(program: RawFd) -> u64 {
    let information = std::fs::read_to_string(format!("/proc/self/fdinfo/{program}")).unwrap_or_default();
    parse(&information).unwrap_or(0)
}

fn parse(information: &str) -> Option<u64> {
    let value = information.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misses_are_read_from_what_the_kernel_says_of_a_program() {
        let told = "pos:\t0\nprog_type:\t26\nrun_cnt:\t0\nrecursion_misses:\t979\nverified_insns:\t14760\n";
        assert_eq!(parse(told), Some(979));
        assert_eq!(parse("pos:\t0\nprog_type:\t26\n"), None);
    }
}
