//! A recursive parser and an evaluator: slices, lifetimes, matches, labelled loops, shadowing.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hint::black_box;

use crate::witness::capture;

#[derive(Debug, Clone, PartialEq)]
enum Token<'s> {
    Number(f64),
    Name(&'s str),
    Sign(char),
    Open,
    Close,
}

#[derive(Debug, Clone)]
#[allow(dead_code)]
enum Tree<'s> {
    Leaf(f64),
    Variable(&'s str),
    Binary { sign: char, left: Box<Tree<'s>>, right: Box<Tree<'s>> },
    Call { function: &'s str, arguments: Vec<Tree<'s>> },
}

struct Parser<'s> {
    tokens: Vec<Token<'s>>,
    at: usize,
}

pub fn run() {
    let source = "3 * (x + sqrt(y)) - 2";
    let tokens = tokens(source, 1);
    let mut parser = Parser { tokens, at: 0 };
    let tree = parser.sum(0);
    let mut names = HashMap::new();
    names.insert("x", 4.0);
    let value = evaluate(&tree, &names, 0);
    black_box(value.is_err());
    let words = wrap("the quick brown fox jumps over the lazy dog", 14);
    black_box(words);
    let escaped = escape("a<b & c", true);
    black_box(escaped);
    let found = search(&[[1, 2, 3], [4, 5, 6], [7, 8, 9]], 5);
    black_box(found);
}

#[inline(never)]
fn tokens(source: &str, line: u32) -> Vec<Token<'_>> {
    let mut list = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '0'..='9' => rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()),
            'a'..='z' => rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (word, after) = rest.split_at(len);
        let token = match first {
            '0'..='9' => Some(Token::Number(word.parse().unwrap_or(0.0))),
            'a'..='z' => Some(Token::Name(word)),
            '(' => Some(Token::Open),
            ')' => Some(Token::Close),
            ' ' => None,
            sign => Some(Token::Sign(sign)),
        };
        if word == "sqrt" {
            truth!("tokens": source, line, list, rest, first, len, word, after, token);
            capture();
        }
        list.extend(token);
        rest = after;
        black_box((word, len, line));
    }
    list
}

impl<'s> Parser<'s> {
    #[inline(never)]
    fn sum(&mut self, depth: usize) -> Tree<'s> {
        let mut left = self.product(depth);
        while let Some(Token::Sign(sign @ ('+' | '-'))) = self.tokens.get(self.at) {
            let sign = *sign;
            self.at += 1;
            let right = self.product(depth);
            left = Tree::Binary { sign, left: Box::new(left), right: Box::new(right) };
        }
        black_box(depth);
        left
    }

    #[inline(never)]
    fn product(&mut self, depth: usize) -> Tree<'s> {
        let mut left = self.atom(depth);
        while let Some(Token::Sign('*')) = self.tokens.get(self.at) {
            self.at += 1;
            let right = self.atom(depth);
            left = Tree::Binary { sign: '*', left: Box::new(left), right: Box::new(right) };
        }
        black_box(depth);
        left
    }

    #[inline(never)]
    fn atom(&mut self, depth: usize) -> Tree<'s> {
        let position = self.at;
        truth!("atom": depth, position);
        let token = self.tokens[position].clone();
        self.at += 1;
        match token {
            Token::Number(value) => Tree::Leaf(value),
            Token::Name(function) if self.tokens.get(self.at) == Some(&Token::Open) => {
                self.at += 1;
                let argument = self.sum(depth + 1);
                self.at += 1;
                let arguments = vec![argument];
                let count = arguments.len();
                truth!("atom": depth, position, function, arguments, count);
                capture();
                black_box((count, position));
                Tree::Call { function, arguments }
            }
            Token::Name(name) => Tree::Variable(name),
            Token::Open => {
                let inner = self.sum(depth + 1);
                self.at += 1;
                inner
            }
            other => {
                black_box(&other);
                Tree::Leaf(f64::NAN)
            }
        }
    }
}

#[inline(never)]
fn evaluate(tree: &Tree<'_>, names: &HashMap<&str, f64>, depth: u32) -> Result<f64, String> {
    truth!("evaluate": tree, depth);
    let result = match tree {
        Tree::Leaf(value) => *value,
        Tree::Variable(name) => {
            let known = names.contains_key(name);
            let Some(value) = names.get(name) else {
                let message = format!("no {name}");
                truth!("evaluate": tree, names, depth, name, known, message);
                capture();
                black_box(known);
                return Err(message);
            };
            *value
        }
        Tree::Binary { sign, left, right } => {
            let left = evaluate(left, names, depth + 1)?;
            let right = evaluate(right, names, depth + 1)?;
            match sign {
                '+' => left + right,
                '-' => left - right,
                _ => left * right,
            }
        }
        Tree::Call { arguments, .. } => evaluate(&arguments[0], names, depth + 1)?.sqrt(),
    };
    black_box(depth);
    Ok(result)
}

#[inline(never)]
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for (index, word) in text.split(' ').enumerate() {
        let needed = line.len() + word.len() + 1;
        let full = needed > width;
        if full {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if word == "over" {
            truth!("wrap": text, width, lines, line, index, word, needed, full);
            capture();
        }
        black_box((needed, full));
    }
    lines.push(line);
    lines
}

#[inline(never)]
fn escape(text: &str, strict: bool) -> Cow<'_, str> {
    let special = |c: char| matches!(c, '<' | '&');
    let count = text.chars().filter(|c| special(*c)).count();
    let text = text.trim();
    if count == 0 {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + count * 4);
    for (offset, letter) in text.char_indices() {
        let replaced: Option<&'static str> = match letter {
            '<' => Some("&lt;"),
            '&' if strict => Some("&amp;"),
            _ => None,
        };
        if letter == '&' {
            truth!("escape": strict, count, escaped, offset, letter, replaced);
            capture();
        }
        match replaced {
            Some(replaced) => escaped.push_str(replaced),
            None => escaped.push(letter),
        }
        black_box((offset, count));
    }
    Cow::Owned(escaped)
}

#[inline(never)]
fn search<const W: usize, const H: usize>(grid: &[[u32; W]; H], wanted: u32) -> Option<(usize, usize)> {
    let mut compared = 0_u16;
    'rows: for (y, row) in grid.iter().enumerate() {
        let smallest = row[0];
        for (x, cell) in row.iter().enumerate() {
            compared += 1;
            if *cell == wanted {
                let position = (x, y);
                truth!("search": grid, wanted, compared, y, row, smallest, x, cell, position);
                capture();
                black_box((compared, smallest));
                return Some(position);
            }
            if *cell > wanted {
                continue 'rows;
            }
        }
    }
    None
}
