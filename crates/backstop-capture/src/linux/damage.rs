//! Debug information whose bytes were changed: every lookup ends with an answer.
//!
//! `BACKSTOP_CAPTURE_FUZZ` sets the number of rounds. Many rounds are done by child processes
//! of which each has little memory and little time, because what is read of debug information
//! is kept for ever: it is freed with the process.

use std::cell::Cell;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gimli::{Dwarf, DwarfPackage, EndianSlice, LittleEndian, SectionId};

use super::call::Calls;
use super::clock::Clock;
use super::coroutine::read_declarations;
use super::debug_file::tests::{Random, offsets, rounds};
use super::debug_file::{DebugFile, Elf, Found, Slice, open_elf, section};
use super::location::{Context, Place, locate};
use super::memory::Memory;
use super::registers::{COUNT, Registers};
use super::render::Renderer;
use super::ty::Kind;
use super::{frames, module};
use crate::{Limits, Redaction};

/// Rounds of one child process.
const BATCH: usize = 5000;
/// Address space of a child; a round leaves less than a hundred kilobytes behind.
const CHILD_BYTES_MAX: u64 = 4 << 30;
/// Time of a child, on a machine that is busy with something else.
const CHILD_TIME_MAX: Duration = Duration::from_secs(1200);
/// CPU time of one round; whatever takes this long would take a request with it.
const ROUND_TIME_MAX: Duration = Duration::from_secs(2);
/// Set for child processes: the number of the first round.
const FIRST_ROUND: &str = "BACKSTOP_CAPTURE_FUZZ_FIRST";

/// The sections of one library, as they were compiled.
struct Seed {
    name: &'static str,
    main: Vec<(SectionId, Vec<u8>)>,
    package: Option<Vec<(SectionId, Vec<u8>)>>,
}

impl Seed {
    /// Compiles the library with these flags.
    fn compile(name: &'static str, flags: &[&str]) -> Seed {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let directory = format!("backstop-seed-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(directory);
        std::fs::create_dir_all(&directory).expect("there is room for files");
        let library: PathBuf = directory.join(format!("{name}.so"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/seed.rs");
        let status = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .args(["--edition=2024", "--crate-type=cdylib", "-g", "-O"])
            .args(["-Cpanic=abort", "-Clink-arg=-nostdlib", source, "-o"])
            .arg(&library)
            .args(flags)
            .status();
        assert!(status.is_ok_and(|status| status.success()), "{name}");
        let main = open_elf(&library).expect("it was linked");
        let package = open_elf(&directory.join(format!("{name}.so.dwp")));
        let seed = Seed {
            name,
            main: sections(&main, |id| Some(id.name())),
            package: package.map(|package| sections(&package, SectionId::dwo_name)),
        };
        std::fs::remove_dir_all(&directory).expect("it is ours");
        seed
    }

    /// The same sections with some bytes changed.
    fn damaged(&self, random: &mut Random) -> &'static DebugFile {
        let mut main = self.main.clone();
        let mut package = self.package.clone();
        for _ in 0..=random.below(12) {
            let sections = match &mut package {
                Some(package) if random.below(3) > 0 => package,
                _ => &mut main,
            };
            let at = random.below(sections.len());
            damage(&mut sections[at].1, random);
        }
        open(main, package)
    }
}

fn sections(
    elf: &Elf,
    name: impl Fn(SectionId) -> Option<&'static str>,
) -> Vec<(SectionId, Vec<u8>)> {
    const ALL: [SectionId; 14] = [
        SectionId::DebugAbbrev,
        SectionId::DebugAddr,
        SectionId::DebugAranges,
        SectionId::DebugCuIndex,
        SectionId::DebugInfo,
        SectionId::DebugLine,
        SectionId::DebugLineStr,
        SectionId::DebugLoc,
        SectionId::DebugLocLists,
        SectionId::DebugRanges,
        SectionId::DebugRngLists,
        SectionId::DebugStr,
        SectionId::DebugStrOffsets,
        SectionId::DebugTypes,
    ];
    ALL.into_iter()
        .filter_map(|id| Some((id, section(elf, name(id)?).slice().to_vec())))
        .filter(|(_, bytes)| !bytes.is_empty())
        .collect()
}

fn open(
    main: Vec<(SectionId, Vec<u8>)>,
    package: Option<Vec<(SectionId, Vec<u8>)>>,
) -> &'static DebugFile {
    let slices = |sections: Vec<(SectionId, Vec<u8>)>| {
        let leaked = sections.into_iter().map(|(id, bytes)| {
            let bytes: &'static [u8] = Box::leak(bytes.into_boxed_slice());
            (id, EndianSlice::new(bytes, LittleEndian))
        });
        leaked.collect::<Vec<(SectionId, Slice)>>()
    };
    let (main, package) = (slices(main), package.map(slices));
    let empty = EndianSlice::new(&[][..], LittleEndian);
    let load = |sections: &[(SectionId, Slice)], id: SectionId| {
        let found = sections.iter().find(|(known, _)| *known == id);
        Ok::<_, gimli::Error>(found.map_or(empty, |(_, slice)| *slice))
    };
    let dwarf = Dwarf::load(|id| load(&main, id)).expect("loading reads nothing");
    let package =
        package.and_then(|package| DwarfPackage::load(|id| load(&package, id), empty).ok());
    Box::leak(Box::new(DebugFile::new(
        dwarf,
        package,
        None,
        Found::Inside,
    )))
}

fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len());
    let Some(byte) = bytes.get_mut(at) else {
        return;
    };
    match random.below(8) {
        0 => *byte = random.next() as u8,
        1 => *byte ^= 1 << random.below(8),
        2 => *byte = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
        3 => *byte = byte.wrapping_add(1),
        4 => *byte = byte.wrapping_sub(1),
        5 => {
            // A length or an offset that is far too large, or nearly.
            let len = 4.min(bytes.len() - at);
            let word = (random.next() as u32) >> random.below(32);
            bytes[at..at + len].copy_from_slice(&word.to_le_bytes()[..len]);
        }
        6 => {
            let len = (1 + random.below(16)).min(bytes.len() - at);
            let from = random.below(bytes.len() - len + 1);
            bytes.copy_within(from..from + len, at);
        }
        _ if random.below(8) == 0 => bytes.truncate(at),
        _ => *byte = 0,
    }
}

/// Asks everything that a capture asks.
fn look_up(debug: &'static DebugFile, random: &mut Random) {
    let modules = module::loaded();
    let memory = Memory::new(1 << 20);
    let limits = Limits {
        nodes: 50,
        ..Limits::default()
    };
    let redaction = Redaction::default();
    let mut renderer = Renderer::new(&memory, &modules, &redaction, &limits);
    let words: Vec<u64> = (0..64).map(|_| random.next() >> random.below(64)).collect();
    let base = words.as_ptr() as u64;
    let mut registers = Registers::default();
    for number in 0..COUNT as u16 {
        let value = (random.below(2) == 0).then(|| base + random.next() % 256);
        registers.set(gimli::Register(number), value);
    }
    for address in [0, 0x1000, random.next() % 0x4000, random.next()] {
        debug.unit_at(address);
    }
    for offset in debug.unit_offsets().iter().take(4) {
        debug.unit_around(offset + random.below(4096));
        let Some(unit) = debug.unit(*offset) else {
            continue;
        };
        unit.has_variables();
        unit.is_foreign();
        unit.vtable_type(random.next() % 0x4000);
        let mut starts = unit.functions_for_tests();
        starts.truncate(8);
        for start in starts {
            let Some(function) = unit.function_at(start) else {
                continue;
            };
            let address = start.wrapping_add(random.next() % 128);
            frames::by_debug_information(unit, address, None);
            for level in function.levels(address) {
                let context = Context {
                    unit,
                    memory: &memory,
                    registers: &registers,
                    cfa: Some(base),
                    frame_base: function.frame_base,
                    address,
                    bias: 0,
                    calls: Calls {
                        steps: &[],
                        at: 0,
                        memory: &memory,
                    },
                    recovered: Cell::new(false),
                };
                read_declarations(level.die);
                for var in level.blocks.iter().flat_map(|block| &block.vars).take(16) {
                    let ty = var.described().ty;
                    let size = ty.map_or(8, |ty| ty.size);
                    let Ok(located) = locate(var, size, &context) else {
                        continue;
                    };
                    if let Some(ty) = ty {
                        ty.owns();
                        renderer.variable(ty, &located.place).0.summary(1000);
                    }
                }
            }
        }
        let dies = offsets(unit);
        for _ in 0..12.min(dies.len()) {
            let ty = unit.type_at(dies[random.below(dies.len())]);
            ty.owns();
            renderer
                .variable(ty, &Place::Memory(base + random.next() % 256))
                .0
                .summary(1000);
        }
    }
}

fn batch(first: usize, count: usize) {
    let packed = "-Csplit-debuginfo=packed";
    let seeds = [
        Seed::compile("four", &["-Cdwarf-version=4"]),
        Seed::compile("five", &["-Cdwarf-version=5"]),
        Seed::compile("four-packed", &["-Cdwarf-version=4", packed]),
        Seed::compile("five-packed", &["-Cdwarf-version=5", packed]),
    ];
    assert!(seeds[2].package.is_some() && seeds[3].package.is_some());
    for round in first..first + count {
        let mut random =
            Random(0x9e37_79b9_7f4a_7c15 ^ (round as u64 + 1).wrapping_mul(0x2545_f491_4f6c_dd1d));
        let seed = &seeds[round % seeds.len()];
        let start = Clock::start();
        look_up(seed.damaged(&mut random), &mut random);
        let taken = start.elapsed();
        assert!(
            taken < ROUND_TIME_MAX,
            "round {round} ({}) took {taken:?}",
            seed.name
        );
    }
}

#[test]
fn undamaged_seeds_have_everything() {
    for flags in [
        &["-Cdwarf-version=4"][..],
        &["-Cdwarf-version=5", "-Csplit-debuginfo=packed"],
    ] {
        let seed = Seed::compile("whole", flags);
        let debug = open(seed.main.clone(), seed.package.clone());
        let units: Vec<_> = debug
            .unit_offsets()
            .iter()
            .filter_map(|offset| debug.unit(*offset))
            .collect();
        let functions: usize = units
            .iter()
            .map(|unit| unit.functions_for_tests().len())
            .sum();
        let dies: usize = units.iter().map(|unit| offsets(unit).len()).sum();
        assert!(functions >= 3 && dies > 80, "{functions} {dies}");
        assert!(units.iter().any(|unit| unit.has_variables()));
    }
}

#[test]
fn an_array_of_itself_has_no_size() {
    let mut seed = Seed::compile("itself", &["-Cdwarf-version=4"]);
    let debug = open(seed.main.clone(), None);
    let (start, array) = debug
        .unit_offsets()
        .iter()
        .filter_map(|offset| Some((*offset, debug.unit(*offset)?)))
        .find_map(|(start, unit)| {
            let is_array = |offset: &gimli::UnitOffset| {
                let entry = unit.die(*offset).entry();
                entry.is_some_and(|entry| entry.tag() == gimli::DW_TAG_array_type)
            };
            Some((start, offsets(unit).into_iter().find(is_array)?))
        })
        .expect("the library has an array");
    let (_, info) = seed
        .main
        .iter_mut()
        .find(|(id, _)| *id == SectionId::DebugInfo)
        .expect("it has debug information");
    // The element's type follows the one byte that says what the entry has.
    let element = start + array.0 + 1;
    info[element..element + 4].copy_from_slice(&(array.0 as u32).to_le_bytes());
    let unit = open(seed.main, None).unit(start).expect("it is whole");
    let ty = unit.type_at(array);
    assert!(matches!(&ty.kind, Kind::Array(Some(element), _) if element.ty().size == 0));
    assert_eq!((ty.size, ty.owns()), (0, true));
}

#[test]
fn damaged_debug_information_is_survived() {
    const TEST: &str = "platform::damage::damaged_debug_information_is_survived";
    if let Some(first) = std::env::var_os(FIRST_ROUND) {
        let first = first.to_string_lossy().parse().expect("a number");
        let limit = libc::rlimit {
            rlim_cur: CHILD_BYTES_MAX,
            rlim_max: CHILD_BYTES_MAX,
        };
        // SAFETY: the call reads its argument, which is valid.
        let set = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
        assert_eq!(set, 0, "less is always allowed");
        batch(first, BATCH);
        return;
    }
    let rounds = rounds(300);
    if rounds < BATCH {
        batch(0, rounds);
        return;
    }
    let started = Instant::now();
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let first = next.fetch_add(BATCH, Ordering::Relaxed);
                    if first >= rounds {
                        break;
                    }
                    in_child(TEST, first);
                    if first.is_multiple_of(BATCH * 10) {
                        println!("{} rounds, {:?}", first + BATCH, started.elapsed());
                    }
                }
            });
        }
    });
}

/// One batch in a process of its own.
fn in_child(test: &str, first: usize) {
    let mut child = Command::new(std::env::current_exe().expect("this program has a path"))
        .args(["--exact", test])
        .env(FIRST_ROUND, first.to_string())
        .spawn()
        .expect("the program can be run again");
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("the child is ours") {
            break status;
        }
        if begun.elapsed() > CHILD_TIME_MAX {
            child.kill().expect("the child is ours");
            panic!("rounds from {first} hang");
        }
        std::thread::park_timeout(Duration::from_millis(20));
    };
    assert!(status.success(), "rounds from {first}");
}
