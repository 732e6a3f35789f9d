//! The stack machine that a pickle is the program of.
//!
//! It knows all that Python's pickler writes for plain values in any of its protocols, and refuses the rest.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;
use std::str;

use super::{Function, Language, Limits, Pickle, PickleError, Slot, Thing, opcode};

/// Each step takes one opcode and its operand from the input.
pub struct Machine<'a> {
    input: &'a [u8],
    limits: Limits,
    at: usize,
    stack: Vec<Slot>,
    marks: Vec<usize>,
    memo: HashMap<u32, Slot>,
    things: Vec<Thing<'a>>,
    values: usize,
    copied: usize,
}

/// What one opcode came to, short of the place it stands at.
enum Fault {
    CutShort,
    Forbidden,
    Malformed,
}

impl<'a> Machine<'a> {
    pub fn new(input: &'a [u8], limits: Limits) -> Machine<'a> {
        Machine {
            input,
            limits,
            at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            things: Vec::new(),
            values: 0,
            copied: 0,
        }
    }

    pub fn run(mut self) -> Result<Pickle<'a>, PickleError> {
        loop {
            let at = self.at;
            let opcode = *self.input.get(at).ok_or(PickleError::CutShort)?;
            self.at += 1;
            if opcode == opcode::STOP {
                let root = self.pop().map_err(|_| PickleError::Malformed { opcode, at })?;
                return Ok(Pickle { things: self.things, root });
            }
            self.step(opcode).map_err(|fault| match fault {
                Fault::CutShort => PickleError::CutShort,
                Fault::Forbidden => PickleError::Forbidden { opcode, at },
                Fault::Malformed => PickleError::Malformed { opcode, at },
            })?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), Fault> {
        match opcode {
            opcode::PROTO => match self.take(1)?[0] {
                0..=5 => Ok(()),
                _ => Err(Fault::Forbidden),
            },
            opcode::FRAME => match self.length(8)? {
                length if length > self.input.len() - self.at => Err(Fault::CutShort),
                _ => Ok(()),
            },
            opcode::MARK if self.marks.len() < self.limits.values => {
                self.marks.push(self.stack.len());
                Ok(())
            }

            opcode::NONE => self.push(Slot::None),
            opcode::NEWTRUE => self.push(Slot::Boolean(true)),
            opcode::NEWFALSE => self.push(Slot::Boolean(false)),
            opcode::BININT1 => self.push_integer(1, false),
            opcode::BININT2 => self.push_integer(2, false),
            opcode::BININT => self.push_integer(4, true),
            opcode::LONG1 => {
                let length = self.length(1)?;
                self.push_integer(length, true)
            }
            opcode::LONG4 => {
                let length = self.length(4)?;
                self.push_integer(length, true)
            }
            opcode::INT | opcode::LONG => match (opcode, self.text_line()?) {
                (opcode::INT, "00") => self.push(Slot::Boolean(false)),
                (opcode::INT, "01") => self.push(Slot::Boolean(true)),
                (opcode::INT, digits) => self.push(Slot::Integer(parse(digits)?)),
                (_, digits) => self.push(Slot::Integer(parse(digits.trim_end_matches('L'))?)),
            },

            opcode::SHORT_BINSTRING => self.push_counted(1, Machine::push_string),
            opcode::BINSTRING => self.push_counted(4, Machine::push_string),
            opcode::SHORT_BINUNICODE => self.push_counted(1, Machine::push_text),
            opcode::BINUNICODE => self.push_counted(4, Machine::push_text),
            opcode::BINUNICODE8 => self.push_counted(8, Machine::push_text),
            opcode::SHORT_BINBYTES => self.push_counted(1, Machine::push_bytes),
            opcode::BINBYTES => self.push_counted(4, Machine::push_bytes),
            opcode::BINBYTES8 => self.push_counted(8, Machine::push_bytes),
            opcode::UNICODE => {
                let text = unescape_unicode(self.line()?).ok_or(Fault::Malformed)?;
                self.push_thing(Thing::Text(text.into()))
            }
            opcode::STRING => {
                let bytes = unescape_string(self.line()?).ok_or(Fault::Malformed)?;
                self.push_string(bytes.into())
            }

            opcode::EMPTY_TUPLE => self.push_tuple(self.stack.len()),
            opcode::TUPLE1 | opcode::TUPLE2 | opcode::TUPLE3 => {
                let length = usize::from(opcode - opcode::TUPLE1) + 1;
                let start = self.stack.len().checked_sub(length).ok_or(Fault::Malformed)?;
                self.push_tuple(start)
            }
            opcode::TUPLE => {
                let start = self.mark()?;
                self.push_tuple(start)
            }

            opcode::BINPUT => self.length(1).and_then(|place| self.put(place)),
            opcode::LONG_BINPUT => self.length(4).and_then(|place| self.put(place)),
            opcode::PUT => self.text_line().and_then(parse).and_then(|place| self.put(place)),
            opcode::MEMOIZE => self.put(self.memo.len()),
            opcode::BINGET => self.length(1).and_then(|place| self.get(place)),
            opcode::LONG_BINGET => self.length(4).and_then(|place| self.get(place)),
            opcode::GET => self.text_line().and_then(parse).and_then(|place| self.get(place)),

            opcode::GLOBAL => {
                let (module, name) = (self.line()?, self.line()?);
                let function = self.function(module, name)?;
                self.push(Slot::Function(function))
            }
            opcode::STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                let function = match (self.text(module), self.text(name)) {
                    (Some(module), Some(name)) => self.function(module.as_bytes(), name.as_bytes())?,
                    _ => return Err(Fault::Malformed),
                };
                self.push(Slot::Function(function))
            }
            opcode::REDUCE => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let arguments = match self.thing(arguments) {
                    Some(Thing::Tuple(arguments)) if arguments.len() <= 4 => arguments.to_vec(),
                    Some(Thing::Tuple(_)) => return Err(Fault::Forbidden),
                    _ => return Err(Fault::Malformed),
                };
                self.call(function, &arguments)
            }
            _ => match self.limits.language {
                Language::Records => Err(Fault::Forbidden),
                Language::Plain(_) => self.step_beyond_records(opcode),
            },
        }
    }

    /// The opcodes of what no record holds.
    fn step_beyond_records(&mut self, opcode: u8) -> Result<(), Fault> {
        match opcode {
            opcode::BYTEARRAY8 => self.push_counted(8, Machine::push_bytes),
            opcode::BINFLOAT => {
                let bytes = self.take(8)?.try_into().expect("8 bytes");
                self.push(Slot::Float(f64::from_be_bytes(bytes)))
            }
            opcode::FLOAT => {
                let float = self.text_line().and_then(parse)?;
                self.push(Slot::Float(float))
            }

            opcode::EMPTY_LIST => self.push_thing(Thing::List(Vec::new())),
            opcode::LIST => {
                let start = self.mark()?;
                self.push_thing(Thing::List(Vec::new()))?;
                let list = self.stack.pop().expect("the list");
                self.append(list, start)?;
                self.stack.push(list);
                Ok(())
            }
            opcode::APPEND => {
                let start = self.stack.len().checked_sub(1).ok_or(Fault::Malformed)?;
                let list = self.below(start)?;
                self.append(list, start)
            }
            opcode::APPENDS => {
                let start = self.mark()?;
                let list = self.below(start)?;
                self.append(list, start)
            }

            opcode::EMPTY_DICT => self.push_thing(Thing::Dict(Vec::new())),
            opcode::DICT => {
                let start = self.mark()?;
                self.push_thing(Thing::Dict(Vec::new()))?;
                let dict = self.stack.pop().expect("the dict");
                self.set(dict, start)?;
                self.stack.push(dict);
                Ok(())
            }
            opcode::SETITEM => {
                let start = self.stack.len().checked_sub(2).ok_or(Fault::Malformed)?;
                let dict = self.below(start)?;
                self.set(dict, start)
            }
            opcode::SETITEMS => {
                let start = self.mark()?;
                let dict = self.below(start)?;
                self.set(dict, start)
            }

            opcode::NEWOBJ => match (self.pop()?, self.pop()?) {
                (nothing, Slot::Function(Function::Class(class))) if self.is_empty_tuple(nothing) => {
                    self.push_thing(Thing::Object { class, attributes: None })
                }
                _ => Err(Fault::Forbidden),
            },
            opcode::OBJ => {
                let start = self.mark()?;
                let made = self.stack.split_off(start);
                let [Slot::Function(Function::Class(class))] = made[..] else { return Err(Fault::Forbidden) };
                self.push_thing(Thing::Object { class, attributes: None })
            }
            opcode::INST => {
                let (module, name) = (self.line()?, self.line()?);
                let start = self.mark()?;
                match self.function(module, name)? {
                    Function::Class(class) if start == self.stack.len() => {
                        self.push_thing(Thing::Object { class, attributes: None })
                    }
                    _ => Err(Fault::Forbidden),
                }
            }
            opcode::BUILD => {
                let state = self.pop()?;
                let object = self.below(self.stack.len())?;
                let is_dict = matches!(self.thing(state), Some(Thing::Dict(_)));
                match self.thing_mut(object) {
                    Some(Thing::Object { attributes: attributes @ None, .. }) if is_dict => {
                        *attributes = Some(state);
                        Ok(())
                    }
                    _ => Err(Fault::Malformed),
                }
            }
            _ => Err(Fault::Forbidden),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let taken = self.input[self.at..].get(..length).ok_or(Fault::CutShort)?;
        self.at += length;
        Ok(taken)
    }

    fn line(&mut self) -> Result<&'a [u8], Fault> {
        let rest = &self.input[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or(Fault::CutShort)?;
        self.at += length + 1;
        Ok(&rest[..length])
    }

    fn text_line(&mut self) -> Result<&'a str, Fault> {
        str::from_utf8(self.line()?).map_err(|_| Fault::Malformed)
    }

    /// A little-endian length or place of up to 8 bytes.
    fn length(&mut self, width: usize) -> Result<usize, Fault> {
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(self.take(width)?);
        usize::try_from(u64::from_le_bytes(bytes)).map_err(|_| Fault::Malformed)
    }

    /// What lies below this belongs to something that is not finished.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn mark(&mut self) -> Result<usize, Fault> {
        let start = self.marks.pop().ok_or(Fault::Malformed)?;
        if start <= self.stack.len() { Ok(start) } else { Err(Fault::Malformed) }
    }

    fn pop(&mut self) -> Result<Slot, Fault> {
        let value = if self.stack.len() > self.floor() { self.stack.pop() } else { None };
        value.ok_or(Fault::Malformed)
    }

    /// The value just below this place of the stack.
    fn below(&self, start: usize) -> Result<Slot, Fault> {
        let slot = if start > self.floor() { self.stack.get(start - 1) } else { None };
        slot.copied().ok_or(Fault::Malformed)
    }

    fn push(&mut self, slot: Slot) -> Result<(), Fault> {
        self.count(1)?;
        self.stack.push(slot);
        Ok(())
    }

    fn count(&mut self, values: usize) -> Result<(), Fault> {
        if values > self.limits.values - self.values {
            return Err(Fault::Forbidden);
        }
        self.values += values;
        Ok(())
    }

    /// Counts what is copied though the input has it once. Honest pickles do not come near the limit.
    fn copy(&mut self, length: usize) -> Result<(), Fault> {
        self.copied = self.copied.saturating_add(length);
        if self.copied <= self.input.len() { Ok(()) } else { Err(Fault::Forbidden) }
    }

    fn thing(&self, slot: Slot) -> Option<&Thing<'a>> {
        match slot {
            Slot::Thing(place) => self.things.get(place as usize),
            _ => None,
        }
    }

    fn thing_mut(&mut self, slot: Slot) -> Option<&mut Thing<'a>> {
        match slot {
            Slot::Thing(place) => self.things.get_mut(place as usize),
            _ => None,
        }
    }

    fn text(&self, slot: Slot) -> Option<&str> {
        match self.thing(slot)? {
            Thing::Text(text) => Some(text),
            _ => None,
        }
    }

    fn is_empty_tuple(&self, slot: Slot) -> bool {
        matches!(self.thing(slot), Some(Thing::Tuple(items)) if items.is_empty())
    }

    fn push_thing(&mut self, thing: Thing<'a>) -> Result<(), Fault> {
        let place = u32::try_from(self.things.len()).map_err(|_| Fault::Forbidden)?;
        self.push(Slot::Thing(place))?;
        self.things.push(thing);
        Ok(())
    }

    fn push_integer(&mut self, width: usize, signed: bool) -> Result<(), Fault> {
        let bytes = self.take(width)?;
        let negative = signed && bytes.last().is_some_and(|high| *high >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide.get_mut(..width).ok_or(Fault::Malformed)?.copy_from_slice(bytes);
        self.push(Slot::Integer(i64::from_le_bytes(wide)))
    }

    fn push_counted(
        &mut self,
        width: usize,
        push: impl FnOnce(&mut Machine<'a>, Cow<'a, [u8]>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let length = self.length(width)?;
        let bytes = self.take(length)?;
        push(self, bytes.into())
    }

    fn push_text(&mut self, bytes: Cow<'a, [u8]>) -> Result<(), Fault> {
        self.push_thing(Thing::Text(as_text(bytes).map_err(|_| Fault::Malformed)?))
    }

    /// A string of Python 2, which was text or bytes as one wanted.
    fn push_string(&mut self, bytes: Cow<'a, [u8]>) -> Result<(), Fault> {
        match as_text(bytes) {
            Ok(text) => self.push_thing(Thing::Text(text)),
            Err(bytes) => self.push_bytes(bytes),
        }
    }

    fn push_bytes(&mut self, bytes: Cow<'a, [u8]>) -> Result<(), Fault> {
        match self.limits.language {
            Language::Records => self.push_text(bytes),
            Language::Plain(_) => self.push_thing(Thing::Bytes(bytes)),
        }
    }

    fn push_tuple(&mut self, start: usize) -> Result<(), Fault> {
        if start < self.floor() {
            return Err(Fault::Malformed);
        }
        let items = self.stack.drain(start..).collect();
        self.push_thing(Thing::Tuple(items))
    }

    /// Moves what lies above a place of the stack to the end of a list.
    fn append(&mut self, list: Slot, start: usize) -> Result<(), Fault> {
        let Slot::Thing(place) = list else { return Err(Fault::Malformed) };
        let place = place as usize;
        let small = |slot: &Slot| match slot {
            Slot::Integer(integer) => u32::try_from(*integer).ok(),
            _ => None,
        };
        let are_numbers = self.stack[start..].iter().all(|slot| small(slot).is_some());
        match &self.things[place] {
            Thing::List(items) if items.is_empty() && are_numbers => {
                self.things[place] = Thing::Numbers(Rc::default());
            }
            Thing::Numbers(numbers) if are_numbers => {
                let is_shared = Rc::strong_count(numbers) > 1;
                self.copy(if is_shared { numbers.len() } else { 0 })?;
            }
            // Something else comes in among the numbers.
            Thing::Numbers(numbers) => {
                let numbers = Rc::clone(numbers);
                self.count(numbers.len())?;
                let items = numbers.iter().map(|&number| Slot::Integer(number.into()));
                self.things[place] = Thing::List(items.collect());
            }
            _ => {}
        }
        match &mut self.things[place] {
            Thing::Numbers(numbers) => {
                self.values -= self.stack.len() - start;
                Rc::make_mut(numbers).extend(self.stack.drain(start..).filter_map(|slot| small(&slot)));
            }
            Thing::List(items) => items.extend(self.stack.drain(start..)),
            _ => return Err(Fault::Malformed),
        }
        Ok(())
    }

    /// Moves what lies above a place of the stack into a dict, keys and values in turn.
    fn set(&mut self, dict: Slot, start: usize) -> Result<(), Fault> {
        let Slot::Thing(place) = dict else { return Err(Fault::Malformed) };
        match &mut self.things[place as usize] {
            Thing::Dict(entries) if (self.stack.len() - start) % 2 == 0 => {
                entries.extend(self.stack[start..].chunks_exact(2).map(|entry| (entry[0], entry[1])));
                self.stack.truncate(start);
                Ok(())
            }
            _ => Err(Fault::Malformed),
        }
    }

    fn function(&self, module: &[u8], name: &[u8]) -> Result<Function, Fault> {
        let classes = match (module, name, self.limits.language) {
            (b"_codecs", b"encode", _) => return Ok(Function::Encode),
            (b"builtins" | b"__builtin__", b"bytes", _) => return Ok(Function::Bytes),
            (_, _, Language::Records) => return Err(Fault::Forbidden),
            (b"builtins" | b"__builtin__", b"bytearray", _) => return Ok(Function::ByteArray),
            (b"array", b"array", _) => return Ok(Function::Array),
            (b"array", b"_array_reconstructor", _) => return Ok(Function::ArrayOfBytes),
            (b"copyreg" | b"copy_reg", b"_reconstructor", _) => return Ok(Function::Reconstructor),
            (b"builtins" | b"__builtin__", b"object", _) => return Ok(Function::Object),
            (_, _, Language::Plain(classes)) => classes,
        };
        let known = |class: &(&str, &str)| (class.0.as_bytes(), class.1.as_bytes()) == (module, name);
        classes.iter().position(known).map(Function::Class).ok_or(Fault::Forbidden)
    }

    /// Does what Python's function would.
    fn call(&mut self, function: Slot, arguments: &[Slot]) -> Result<(), Fault> {
        let Slot::Function(function) = function else { return Err(Fault::Forbidden) };
        match (function, arguments) {
            (Function::Encode | Function::ByteArray, &[text, codec]) => {
                match (self.text(text), self.text(codec)) {
                    (Some(text), Some("latin1" | "latin-1")) => {
                        let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
                        let bytes = bytes.map_err(|_| Fault::Malformed)?;
                        self.copy(bytes.len())?;
                        self.push_bytes(bytes.into())
                    }
                    _ => Err(Fault::Forbidden),
                }
            }
            (Function::Bytes | Function::ByteArray, []) => self.push_bytes(b"".into()),
            (Function::ByteArray, &[bytes]) => match self.thing(bytes) {
                Some(Thing::Bytes(_)) => self.push(bytes),
                _ => Err(Fault::Forbidden),
            },
            (Function::Array, &[code, list]) => {
                let code = self.type_code(code)?;
                let numbers = match self.thing(list) {
                    Some(Thing::Numbers(numbers)) => Rc::clone(numbers),
                    Some(Thing::List(items)) if items.is_empty() => Rc::default(),
                    _ => return Err(Fault::Malformed),
                };
                self.push_array(code, numbers)
            }
            (
                Function::ArrayOfBytes,
                &[Slot::Function(Function::Array), code, Slot::Integer(format), bytes],
            ) => {
                let code = self.type_code(code)?;
                let Some(Thing::Bytes(bytes)) = self.thing(bytes) else { return Err(Fault::Malformed) };
                let bytes = bytes.clone();
                self.copy(bytes.len())?;
                let numbers = numbers(&bytes, format).ok_or(Fault::Forbidden)?;
                self.push_array(code, numbers.into())
            }
            (
                Function::Reconstructor,
                &[Slot::Function(Function::Class(class)), Slot::Function(Function::Object), Slot::None],
            ) => self.push_thing(Thing::Object { class, attributes: None }),
            _ => Err(Fault::Forbidden),
        }
    }

    fn push_array(&mut self, code: u8, numbers: Rc<Vec<u32>>) -> Result<(), Fault> {
        let greatest = match code {
            b'B' => u8::MAX.into(),
            b'H' => u16::MAX.into(),
            _ => u32::MAX,
        };
        match numbers.iter().all(|&number| number <= greatest) {
            true => self.push_thing(Thing::Array { code, numbers }),
            false => Err(Fault::Malformed),
        }
    }

    /// The type code of an array whose numbers we can hold.
    fn type_code(&self, slot: Slot) -> Result<u8, Fault> {
        match self.text(slot).map(str::as_bytes) {
            Some([code @ (b'B' | b'H' | b'I' | b'L')]) => Ok(*code),
            Some(_) => Err(Fault::Forbidden),
            None => Err(Fault::Malformed),
        }
    }

    fn put(&mut self, place: usize) -> Result<(), Fault> {
        let place = u32::try_from(place).map_err(|_| Fault::Malformed)?;
        let slot = self.stack.last().copied().ok_or(Fault::Malformed)?;
        if self.memo.len() == self.limits.values && !self.memo.contains_key(&place) {
            return Err(Fault::Forbidden);
        }
        self.memo.insert(place, slot);
        Ok(())
    }

    fn get(&mut self, place: usize) -> Result<(), Fault> {
        let slot = u32::try_from(place).ok().and_then(|place| self.memo.get(&place).copied());
        self.push(slot.ok_or(Fault::Malformed)?)
    }
}

fn parse<T: str::FromStr>(digits: &str) -> Result<T, Fault> {
    digits.parse().map_err(|_| Fault::Malformed)
}

/// The bytes as text, or back as they are.
fn as_text(bytes: Cow<'_, [u8]>) -> Result<Cow<'_, str>, Cow<'_, [u8]>> {
    match bytes {
        Cow::Borrowed(bytes) => str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Cow::Borrowed(bytes)),
        Cow::Owned(bytes) => {
            String::from_utf8(bytes).map(Cow::Owned).map_err(|error| Cow::Owned(error.into_bytes()))
        }
    }
}

/// The numbers of an array that was pickled as bytes, by Python's number for how they are laid out: so many bytes each,
/// the low or the high one first (`_array_reconstructor`).
fn numbers(bytes: &[u8], format: i64) -> Option<Vec<u32>> {
    let (width, is_big_endian) = match format {
        0 => (1, false),
        2 | 3 => (2, format == 3),
        6 | 7 => (4, format == 7),
        _ => return None,
    };
    if bytes.len() % width != 0 {
        return None;
    }
    let join = |number: u32, byte: &u8| number << 8 | u32::from(*byte);
    let number = |bytes: &[u8]| match is_big_endian {
        true => bytes.iter().fold(0, join),
        false => bytes.iter().rev().fold(0, join),
    };
    Some(bytes.chunks_exact(width).map(number).collect())
}

/// Python's `raw-unicode-escape`: Latin-1, and `\u` or `\U` with 4 or 8 hex digits.
fn unescape_unicode(line: &[u8]) -> Option<String> {
    let mut text = String::new();
    let mut rest = line;
    while let [byte, tail @ ..] = rest {
        let digits = match (byte, tail.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            (b'\\', Some(next)) => {
                text.extend(['\\', char::from(*next)]);
                rest = &tail[1..];
                continue;
            }
            _ => {
                text.push(char::from(*byte));
                rest = tail;
                continue;
            }
        };
        text.push(char::from_u32(hex(tail.get(1..=digits)?)?)?);
        rest = &tail[digits + 1..];
    }
    Some(text)
}

/// A quoted Python 2 string: the bytes between its quotes, escapes undone.
fn unescape_string(line: &[u8]) -> Option<Vec<u8>> {
    let [open @ (b'\'' | b'"'), inner @ .., close] = line else { return None };
    if open != close {
        return None;
    }
    let mut bytes = Vec::new();
    let mut rest = inner;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        let (escape, tail) = tail.split_first()?;
        rest = tail;
        match escape {
            b'\\' | b'\'' | b'"' => bytes.push(*escape),
            b'n' => bytes.push(b'\n'),
            b'r' => bytes.push(b'\r'),
            b't' => bytes.push(b'\t'),
            b'x' => {
                bytes.push(hex(tail.get(..2)?)? as u8);
                rest = &tail[2..];
            }
            // Python's repr writes no other.
            _ => return None,
        }
    }
    Some(bytes)
}

/// The number of up to 8 hex digits.
fn hex(digits: &[u8]) -> Option<u32> {
    let all_hex = digits.iter().all(u8::is_ascii_hexdigit);
    let digits = str::from_utf8(digits).ok().filter(|_| all_hex)?;
    u32::from_str_radix(digits, 16).ok()
}
