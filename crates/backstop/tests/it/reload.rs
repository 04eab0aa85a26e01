//! The reloader, with a program that is this test binary and a build that is a script.

use crate::program::{Folder, Program, command};

const HTML: &str = "Accept: text/html";

fn start(name: &str) -> (Program, Folder) {
    let folder = Folder::new(&format!("reload-{name}"));
    folder.write("main.rs", "fn main() {}");
    folder.write("settings.txt", "1");
    folder.write("build.sh", "exit 0");
    let mut program = Program::start(&mut command("reload", &folder.0));
    program.pin();
    (program, folder)
}

#[test]
fn a_change_restarts_the_program_and_no_connection_is_refused() {
    let (mut program, folder) = start("change");
    let first = program.ask("/", &[]).body;
    for (file, text) in [("main.rs", "fn main() { 1 }"), ("settings.txt", "22")] {
        let before = program.ask("/", &[]).body;
        folder.write(file, text);
        program.wait_for(" * Detected change in '");
        // From here on the old program may be gone and the new one not there yet: it waits.
        let mut now = program.ask("/", &[]).body;
        while now == before {
            now = program.ask("/", &[]).body;
        }
        assert!(now.parse::<u32>().is_ok(), "{now:?}");
    }
    std::fs::remove_file(folder.0.join("main.rs")).unwrap();
    let line = program.wait_for(" * Detected change in '");
    assert!(line.ends_with("main.rs', reloading"), "{line}");
    assert_ne!(first, program.ask("/", &[]).body);
}

#[test]
fn a_broken_build_leaves_the_last_good_one_and_shows_the_compilers_words() {
    let (mut program, folder) = start("broken");
    let good = program.ask("/", &[]).body;
    folder.write(
        "build.sh",
        "echo 'error[E0308]: <mismatched> types' >&2; exit 1",
    );
    folder.write("main.rs", "fn main() { broken }");
    program.wait_for(" * The build is broken");
    let mut page = program.ask("/?a=1", &[HTML]);
    while page.status == 200 {
        // The words are on their way to the program.
        page = program.ask("/?a=1", &[HTML]);
    }
    assert_eq!(page.status, 500);
    assert!(
        page.body.contains("error[E0308]: &lt;mismatched&gt; types"),
        "{}",
        page.body
    );
    // Programs and parts of pages get the last good build.
    assert_eq!(program.ask("/", &[]).body, good);
    assert_eq!(
        program.ask("/", &[HTML, "Sec-Fetch-Dest: script"]).body,
        good
    );

    let link = page.body.split("href=\"").nth(1).unwrap();
    let link = link.split('"').next().unwrap();
    let go_on = program.ask(link, &[HTML]);
    assert_eq!(go_on.header("location"), "/?a=1");
    let cookie = go_on
        .header("set-cookie")
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    assert_eq!(
        program.ask("/", &[HTML, &format!("Cookie: {cookie}")]).body,
        good
    );

    folder.write("build.sh", "exit 0");
    folder.write("main.rs", "fn main() { mended }");
    program.wait_for(" * Detected change in '");
    let mut mended = program.ask("/", &[HTML]);
    while mended.status != 200 || mended.body == good {
        mended = program.ask("/", &[HTML]);
    }
    assert!(mended.body.parse::<u32>().is_ok());
}

#[test]
fn a_new_build_that_ends_at_once_makes_room_for_the_last_good_one() {
    let (mut program, folder) = start("ends");
    let good = program.ask("/", &[]).body;
    // With this file there the new program ends before it serves.
    folder.write("build.sh", "touch ends-at-once");
    folder.write("main.rs", "fn main() { panic!() }");
    let line = program.wait_for(" * The new build ended with code");
    assert!(line.contains("code 5"), "{line}");
    let mut page = program.ask("/", &[HTML]);
    while page.status == 200 {
        page = program.ask("/", &[HTML]);
    }
    assert!(
        page.body.contains("ended with code 5 before it served"),
        "{}",
        page.body
    );
    let again = program.ask("/", &[]).body;
    assert!(again.parse::<u32>().is_ok() && again != good, "{again}");
}

#[test]
fn the_programs_own_end_ends_the_supervisor() {
    let folder = Folder::new("reload-end");
    folder.write("ends-at-once", "");
    // The program ends before it reaches `run`, as without a reloader.
    let output = command("reload", &folder.0).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
}

#[test]
fn asked_to_end_both_processes_end() {
    let (mut program, _folder) = start("both");
    let child = program.ask("/", &[]).body;
    program.signal("TERM");
    assert_eq!(program.process.wait().unwrap().code(), Some(0));
    let alive = std::process::Command::new("kill")
        .args(["-0", &child])
        .output()
        .unwrap();
    assert!(!alive.status.success(), "the child {child} is still there");
}
