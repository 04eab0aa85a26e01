//! Capture in a process that may not call `process_vm_readv`.

use std::process::Command;

use backstop_capture::{Policy, State, snapshot};

/// Set for the child process.
const CHILD: &str = "BACKSTOP_CAPTURE_TEST_SECCOMP";
const TEST: &str = "seccomp::variables_are_read_through_a_pipe";

#[test]
fn variables_are_read_through_a_pipe() {
    if std::env::var_os(CHILD).is_some() {
        forbid(libc::SYS_process_vm_readv);
        let text = String::from("through the pipe");
        let list = vec![1, 2, 3];
        let vars = inner();
        for name in ["text", "list"] {
            let variable = vars
                .iter()
                .find(|variable| variable.name == name)
                .expect("it is in scope");
            assert_eq!(variable.state, State::Ok);
            println!("{name} = {}", variable.value);
        }
        std::hint::black_box((text, list));
        return;
    }
    let child = Command::new(std::env::current_exe().expect("this program has a path"))
        .args(["--exact", "--nocapture", TEST])
        .env(CHILD, "1")
        .output()
        .expect("the program can be run again");
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{text}");
    assert!(
        text.contains("text = \"through the pipe\"") && text.contains("list = [1, 2, 3]"),
        "{text}"
    );
}

#[inline(never)]
fn inner() -> Vec<backstop_capture::Variable> {
    let mut policy = Policy::default();
    // A busy machine must not cost values here.
    policy.limits.time = std::time::Duration::from_secs(600);
    snapshot(&policy).resolve().swap_remove(1).vars
}

/// Makes a system call fail with `EPERM` in this process.
fn forbid(call: libc::c_long) {
    let statement = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let number = u32::try_from(call).expect("numbers of calls are small");
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        statement(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
        ),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: both calls only read their arguments, which live until they return.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ) == 0
    };
    assert!(set, "the filter is accepted");
    let byte = [0_u8];
    let mut copy = [0_u8];
    let local = libc::iovec {
        iov_base: copy.as_mut_ptr().cast(),
        iov_len: 1,
    };
    let remote = libc::iovec {
        iov_base: byte.as_ptr().cast_mut().cast(),
        iov_len: 1,
    };
    // SAFETY: the call is refused; were it not, it would copy one byte to one byte.
    let copied = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    assert_eq!(copied, -1, "the filter is in force");
}
