//! A library without the standard library, so that its debug information is small: what the
//! tests damage byte by byte.
#![no_std]
#![allow(dead_code)]

use core::hint::black_box;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

pub trait Shape {
    fn area(&self) -> u32;
}

pub struct Square {
    pub side: u32,
    pub name: &'static str,
}

pub struct Pair<T> {
    pub left: T,
    pub right: Option<T>,
    pub bytes: [u8; 4],
}

pub enum Kind {
    Empty,
    One(u64),
    Two { left: i16, right: &'static Kind },
}

pub union Either {
    pub number: u64,
    pub text: [u8; 8],
}

#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Level {
    Low = 1,
    High = 9,
}

impl Shape for Square {
    #[inline(never)]
    fn area(&self) -> u32 {
        let area = self.side.wrapping_mul(self.side);
        black_box(area)
    }
}

#[inline(always)]
fn inlined(pair: &Pair<u16>, factor: u16) -> u16 {
    let scaled = pair.left.wrapping_mul(factor);
    let rest = pair.right.unwrap_or(scaled);
    black_box(rest)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn seed_sum(numbers: *const u32, len: usize) -> u32 {
    let mut sum = 0_u32;
    for at in 0..len.min(8) {
        // SAFETY: never called; it is here to be described.
        let number = unsafe { *numbers.add(at) };
        let kind = if number > 5 { Kind::One(u64::from(number)) } else { Kind::Empty };
        sum = sum.wrapping_add(number);
        black_box((&kind, sum));
    }
    sum
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn seed_shapes(side: u32) -> u32 {
    let square = Square { side, name: "square" };
    let shape: &dyn Shape = &square;
    let pair = Pair { left: side as u16, right: Some(3_u16), bytes: [1, 2, 3, 4] };
    let either = Either { number: 7 };
    let two = Kind::Two { left: -1, right: &Kind::Empty };
    let level = if side > 3 { Level::High } else { Level::Low };
    let closure = |x: u32| x.wrapping_add(side);
    let area = black_box(shape).area();
    let short = inlined(&pair, 3);
    let numbers = [side, area, 3];
    let sum = seed_sum(numbers.as_ptr(), numbers.len());
    black_box((&square, &pair, &either, &two, level, short, closure(sum)));
    area.wrapping_add(u32::from(short))
}
