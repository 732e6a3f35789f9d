//! Python pickles, read and written without Python.
//!
//! Swift keeps rings' builders and the rows of pending files as pickles. A pickle is a program for a small stack machine,
//! and in Python it can call anything. Here it builds plain values and nothing else: the few functions that Python's own
//! pickler names, to have arrays, objects, or bytes where the protocol has none, are known by name and done here; an object
//! is the name of its class with its attributes beside it. Everything else is an error.
//!
//! Values can be shared, and can change after they were: the same device stands in two lists of a builder, and a list is
//! remembered before anything is in it. So they lie in one row, [`Pickle::things`], and name each other by their places.
//! Nothing follows these names by itself; a nest of any depth, or a list that holds itself, is read and dropped like the
//! rest. Lists of numbers, which are nearly all of a builder, take four bytes a number.
//!
//! What reading takes is a small multiple of the input: no length in it reserves anything, [`Limits`] says how many values
//! may be built, and what is copied is counted.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::str;

/// What a pickle may build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most values it may build or fetch from its memory, the most it may put there, and the most marks it may set.
    /// Numbers that became part of a list of numbers do not count any more.
    pub values: usize,
    /// What these may be.
    pub language: Language,
}

/// The part of pickle's language that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// `None`, whole numbers, text, and tuples of these. Bytes are text here, and an error if they are not UTF-8.
    Records,
    /// All that is plain: also fractions, bytes, lists, dicts, arrays of unsigned numbers up to 32 bits, and objects of
    /// these classes, given as module and name.
    Plain(&'static [(&'static str, &'static str)]),
}

/// A pickle that was read. Text and bytes are those of the input where that is possible.
#[derive(Debug)]
pub struct Pickle<'a> {
    things: Vec<Thing<'a>>,
    root: Slot,
}

/// A value of a pickle.
#[derive(Debug, Clone, Copy)]
pub struct Value<'p> {
    things: &'p [Thing<'p>],
    slot: Slot,
}

impl<'a> Pickle<'a> {
    /// Runs the pickle up to its end; what follows that is not looked at.
    ///
    /// # Errors
    /// It does not hold together, or wants something else than the limits allow.
    pub fn read(input: &'a [u8], limits: Limits) -> Result<Pickle<'a>, PickleError> {
        Machine::new(input, limits).run()
    }

    /// What the pickle is of.
    pub fn root(&self) -> Value<'_> {
        Value { things: &self.things, slot: self.root }
    }
}

impl<'p> Value<'p> {
    /// Whether it is `None`.
    pub fn is_none(self) -> bool {
        matches!(self.slot, Slot::None)
    }

    /// `True` or `False`.
    pub fn boolean(self) -> Option<bool> {
        match self.slot {
            Slot::Boolean(boolean) => Some(boolean),
            _ => None,
        }
    }

    /// A whole number. As in Python `True` is 1.
    pub fn integer(self) -> Option<i64> {
        match self.slot {
            Slot::Boolean(boolean) => Some(boolean.into()),
            Slot::Integer(integer) => Some(integer),
            _ => None,
        }
    }

    /// Any number.
    pub fn float(self) -> Option<f64> {
        match self.slot {
            Slot::Float(float) => Some(float),
            _ => self.integer().map(|integer| integer as f64),
        }
    }

    /// Text, or what Python 2 took for it.
    pub fn text(self) -> Option<&'p str> {
        match self.thing()? {
            Thing::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The numbers of an array with its type code, which says how wide they are.
    pub fn array(self) -> Option<(u8, &'p [u32])> {
        match self.thing()? {
            Thing::Array { code, numbers } => Some((*code, numbers)),
            _ => None,
        }
    }

    /// The numbers of an array, or of a list of nothing but whole numbers up to 32 bits.
    pub fn numbers(self) -> Option<&'p [u32]> {
        match self.thing()? {
            Thing::Array { numbers, .. } | Thing::Numbers(numbers) => Some(numbers),
            Thing::List(items) if items.is_empty() => Some(&[]),
            _ => None,
        }
    }

    /// The values of a list or tuple.
    pub fn items(self) -> Option<impl ExactSizeIterator<Item = Value<'p>>> {
        let (slots, numbers): (&[Slot], &[u32]) = match self.thing()? {
            Thing::Tuple(items) => (items, &[]),
            Thing::List(items) => (items, &[]),
            Thing::Numbers(numbers) => (&[], numbers),
            _ => return None,
        };
        let things = self.things;
        Some((0..slots.len() + numbers.len()).map(move |at| {
            let slot = match slots.get(at) {
                Some(slot) => *slot,
                None => Slot::Integer(numbers[at - slots.len()].into()),
            };
            Value { things, slot }
        }))
    }

    /// The keys and values of a dict in their order. A key that comes again replaces the one before.
    pub fn entries(self) -> Option<impl ExactSizeIterator<Item = (Value<'p>, Value<'p>)>> {
        let Thing::Dict(entries) = self.thing()? else { return None };
        let value = move |slot| Value { things: self.things, slot };
        Some(entries.iter().map(move |&(key, held)| (value(key), value(held))))
    }

    /// What a dict has under a key.
    pub fn entry(self, key: &str) -> Option<Value<'p>> {
        let Thing::Dict(entries) = self.thing()? else { return None };
        let value = move |slot| Value { things: self.things, slot };
        entries
            .iter()
            .rev()
            .find(|&&(known, _)| value(known).text() == Some(key))
            .map(|&(_, held)| value(held))
    }

    /// The dict of an object's attributes, with the place of its class in [`Language::Plain`].
    pub fn object(self) -> Option<(usize, Value<'p>)> {
        match self.thing()? {
            Thing::Object { class, attributes } => {
                Some((*class, Value { things: self.things, slot: (*attributes)? }))
            }
            _ => None,
        }
    }

    fn thing(self) -> Option<&'p Thing<'p>> {
        match self.slot {
            Slot::Thing(place) => self.things.get(place as usize),
            _ => None,
        }
    }
}

/// What it is, for the eyes of an operator.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.slot {
            Slot::None => f.write_str("None"),
            Slot::Boolean(boolean) => f.write_str(if boolean { "True" } else { "False" }),
            Slot::Integer(integer) => integer.fmt(f),
            Slot::Float(float) => float.fmt(f),
            Slot::Function(_) => f.write_str("a function"),
            Slot::Thing(_) => match self.thing() {
                Some(Thing::Text(text)) if text.chars().count() <= 64 => write!(f, "{text:?}"),
                Some(Thing::Text(_)) => f.write_str("a long text"),
                Some(Thing::Bytes(_)) => f.write_str("bytes"),
                Some(Thing::Tuple(items)) => write!(f, "a tuple of {}", items.len()),
                Some(Thing::List(items)) => write!(f, "a list of {}", items.len()),
                Some(Thing::Numbers(numbers)) => write!(f, "a list of {} numbers", numbers.len()),
                Some(Thing::Dict(_)) => f.write_str("a dict"),
                Some(Thing::Array { numbers, .. }) => write!(f, "an array of {}", numbers.len()),
                Some(Thing::Object { .. }) | None => f.write_str("an object"),
            },
        }
    }
}

/// Why bytes are no pickle that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PickleError {
    /// It ends in the middle.
    CutShort,
    /// It wants something that is not allowed, at this byte of it.
    Forbidden {
        /// What it wants to do.
        opcode: u8,
        /// Where it says so.
        at: usize,
    },
    /// It does not hold together at this byte.
    Malformed {
        /// What it was about to do.
        opcode: u8,
        /// Where it says so.
        at: usize,
    },
}

impl fmt::Display for PickleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PickleError::CutShort => write!(f, "the pickle is cut short"),
            PickleError::Forbidden { opcode, at } => {
                write!(f, "the pickle's opcode {opcode:#04x} at byte {at} wants what is not allowed")
            }
            PickleError::Malformed { opcode, at } => {
                write!(f, "the pickle's opcode {opcode:#04x} at byte {at} does not fit what is there")
            }
        }
    }
}

impl std::error::Error for PickleError {}

/// A value in hand: itself, or where it lies.
#[derive(Debug, Clone, Copy)]
enum Slot {
    None,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Function(Function),
    Thing(u32),
}

/// What may be named to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    /// `_codecs.encode`, which Python calls to have bytes where the protocol has none.
    Encode,
    /// The type `bytes`, called with nothing for bytes of length 0.
    Bytes,
    /// The type `bytearray`, called with nothing, bytes, or what makes bytes. They stay bytes: nothing changes them here.
    ByteArray,
    /// The type `array.array`, called with a type code and a list.
    Array,
    /// `array._array_reconstructor`, called with the numbers as bytes.
    ArrayOfBytes,
    /// `copyreg._reconstructor`, called with a class for an object of it.
    Reconstructor,
    /// The type `object`, on which classes are based.
    Object,
    /// A class of [`Language::Plain`].
    Class(usize),
}

/// A value that can be shared.
#[derive(Debug)]
enum Thing<'a> {
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    Tuple(Box<[Slot]>),
    List(Vec<Slot>),
    /// A list of nothing but whole numbers, and not empty. An array made of it holds the same until one of them changes.
    Numbers(Rc<Vec<u32>>),
    Dict(Vec<(Slot, Slot)>),
    Array {
        code: u8,
        numbers: Rc<Vec<u32>>,
    },
    Object {
        class: usize,
        attributes: Option<Slot>,
    },
}

/// The machine that a pickle is the program of: each step takes one opcode and its operand from the input.
struct Machine<'a> {
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
    fn new(input: &'a [u8], limits: Limits) -> Machine<'a> {
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

    fn run(mut self) -> Result<Pickle<'a>, PickleError> {
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

/// A pickle in the making: protocol 2, as Python writes it.
///
/// Values follow each other; what belongs together is written by a function that is handed the writer.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    remembered: u32,
    words: HashMap<Cow<'static, str>, Place>,
}

/// Where a value is remembered, to be written again as the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u32);

impl Default for Writer {
    fn default() -> Writer {
        Writer { out: vec![opcode::PROTO, 2], remembered: 0, words: HashMap::new() }
    }
}

impl Writer {
    /// `None`.
    pub fn none(&mut self) {
        self.out.push(opcode::NONE);
    }

    /// `True` or `False`.
    pub fn boolean(&mut self, boolean: bool) {
        self.out.push(if boolean { opcode::NEWTRUE } else { opcode::NEWFALSE });
    }

    /// A whole number, as short as it can be written.
    pub fn integer(&mut self, integer: i64) {
        let bytes = integer.to_le_bytes();
        let (opcode, width) = match integer {
            0..=0xff => (opcode::BININT1, 1),
            0x100..=0xffff => (opcode::BININT2, 2),
            _ if i32::try_from(integer).is_ok() => (opcode::BININT, 4),
            _ => {
                let bits = 65 - (integer ^ (integer >> 63)).leading_zeros() as usize;
                let width = bits.div_ceil(8);
                self.out.extend([opcode::LONG1, width as u8]);
                return self.out.extend(&bytes[..width]);
            }
        };
        self.out.push(opcode);
        self.out.extend(&bytes[..width]);
    }

    /// A number that is a fraction, or may be.
    pub fn float(&mut self, float: f64) {
        self.out.push(opcode::BINFLOAT);
        self.out.extend(float.to_be_bytes());
    }

    /// Text of less than 4 GiB.
    pub fn text(&mut self, text: &str) -> Place {
        let length = u32::try_from(text.len()).expect("a text is far below 4 GiB");
        self.out.push(opcode::BINUNICODE);
        self.out.extend(length.to_le_bytes());
        self.out.extend(text.as_bytes());
        self.remember()
    }

    /// Text that is written out the first time only.
    pub fn word(&mut self, word: impl Into<Cow<'static, str>>) {
        let word = word.into();
        match self.words.get(&word) {
            Some(&place) => self.recall(place),
            None => {
                let place = self.text(&word);
                self.words.insert(word, place);
            }
        }
    }

    /// A tuple of so many values.
    pub fn tuple(&mut self, length: usize, write: impl FnOnce(&mut Writer)) -> Place {
        if length > 3 {
            self.out.push(opcode::MARK);
        }
        write(self);
        self.out.push(match length {
            0 => opcode::EMPTY_TUPLE,
            1 => opcode::TUPLE1,
            2 => opcode::TUPLE2,
            3 => opcode::TUPLE3,
            _ => opcode::TUPLE,
        });
        self.remember()
    }

    /// A list.
    pub fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Writer, T),
    ) -> Place {
        self.out.push(opcode::EMPTY_LIST);
        let place = self.remember();
        let mut open = 0;
        for item in items {
            if open == 0 {
                self.out.push(opcode::MARK);
            }
            write(self, item);
            open += 1;
            if open == BATCH {
                self.out.push(opcode::APPENDS);
                open = 0;
            }
        }
        if open > 0 {
            self.out.push(opcode::APPENDS);
        }
        place
    }

    /// A dict: keys and values in turn.
    pub fn dict(&mut self, write: impl FnOnce(&mut Writer)) -> Place {
        self.out.push(opcode::EMPTY_DICT);
        let place = self.remember();
        self.out.push(opcode::MARK);
        write(self);
        self.out.push(opcode::SETITEMS);
        place
    }

    /// An array of numbers that its type code can hold.
    pub fn array(&mut self, code: char, numbers: impl IntoIterator<Item = u32>) {
        match self.words.get(ARRAY) {
            Some(&place) => self.recall(place),
            None => {
                self.out.push(opcode::GLOBAL);
                self.out.extend(ARRAY.as_bytes());
                let place = self.remember();
                self.words.insert(ARRAY.into(), place);
            }
        }
        self.tuple(2, |arguments| {
            arguments.word(code.to_string());
            arguments.list(numbers, |list, number| list.integer(number.into()));
        });
        self.out.push(opcode::REDUCE);
        self.remember();
    }

    /// Something that was written before: the same, not an equal one.
    pub fn recall(&mut self, place: Place) {
        match u8::try_from(place.0) {
            Ok(short) => self.out.extend([opcode::BINGET, short]),
            Err(_) => {
                self.out.push(opcode::LONG_BINGET);
                self.out.extend(place.0.to_le_bytes());
            }
        }
    }

    /// The pickle.
    pub fn finish(mut self) -> Vec<u8> {
        self.out.push(opcode::STOP);
        self.out
    }

    fn remember(&mut self) -> Place {
        let place = Place(self.remembered);
        match u8::try_from(place.0) {
            Ok(short) => self.out.extend([opcode::BINPUT, short]),
            Err(_) => {
                self.out.push(opcode::LONG_BINPUT);
                self.out.extend(place.0.to_le_bytes());
            }
        }
        self.remembered += 1;
        place
    }
}

/// Items of a list that are handed over at once, as many as Python's.
const BATCH: usize = 1000;

/// How a pickle names the type of arrays. No word has lines.
const ARRAY: &str = "array\narray\n";

/// The part of pickle's language that plain values are written in.
mod opcode {
    pub const MARK: u8 = b'(';
    pub const STOP: u8 = b'.';
    pub const PROTO: u8 = 0x80;
    pub const FRAME: u8 = 0x95;

    pub const NONE: u8 = b'N';
    pub const NEWTRUE: u8 = 0x88;
    pub const NEWFALSE: u8 = 0x89;
    pub const INT: u8 = b'I';
    pub const BININT: u8 = b'J';
    pub const BININT1: u8 = b'K';
    pub const BININT2: u8 = b'M';
    pub const LONG: u8 = b'L';
    pub const LONG1: u8 = 0x8a;
    pub const LONG4: u8 = 0x8b;
    pub const FLOAT: u8 = b'F';
    pub const BINFLOAT: u8 = b'G';

    pub const STRING: u8 = b'S';
    pub const BINSTRING: u8 = b'T';
    pub const SHORT_BINSTRING: u8 = b'U';
    pub const UNICODE: u8 = b'V';
    pub const BINUNICODE: u8 = b'X';
    pub const SHORT_BINUNICODE: u8 = 0x8c;
    pub const BINUNICODE8: u8 = 0x8d;
    pub const BINBYTES: u8 = b'B';
    pub const SHORT_BINBYTES: u8 = b'C';
    pub const BINBYTES8: u8 = 0x8e;
    pub const BYTEARRAY8: u8 = 0x96;

    pub const EMPTY_TUPLE: u8 = b')';
    pub const TUPLE: u8 = b't';
    pub const TUPLE1: u8 = 0x85;
    pub const TUPLE2: u8 = 0x86;
    pub const TUPLE3: u8 = 0x87;

    pub const EMPTY_LIST: u8 = b']';
    pub const LIST: u8 = b'l';
    pub const APPEND: u8 = b'a';
    pub const APPENDS: u8 = b'e';
    pub const EMPTY_DICT: u8 = b'}';
    pub const DICT: u8 = b'd';
    pub const SETITEM: u8 = b's';
    pub const SETITEMS: u8 = b'u';

    pub const PUT: u8 = b'p';
    pub const BINPUT: u8 = b'q';
    pub const LONG_BINPUT: u8 = b'r';
    pub const MEMOIZE: u8 = 0x94;
    pub const GET: u8 = b'g';
    pub const BINGET: u8 = b'h';
    pub const LONG_BINGET: u8 = b'j';

    pub const GLOBAL: u8 = b'c';
    pub const STACK_GLOBAL: u8 = 0x93;
    pub const REDUCE: u8 = b'R';
    pub const OBJ: u8 = b'o';
    pub const INST: u8 = b'i';
    pub const NEWOBJ: u8 = 0x81;
    pub const BUILD: u8 = b'b';
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits =
        Limits { values: 1000, language: Language::Plain(&[("a.module", "Thing"), ("b", "Other")]) };

    /// The value as one would write it in Python.
    fn written(value: Value<'_>) -> String {
        let list = |items: Vec<String>| items.join(", ");
        if let Some(text) = value.text() {
            return format!("{text:?}");
        } else if let Some((code, numbers)) = value.array() {
            return format!("{}{numbers:?}", char::from(code));
        } else if let Some((class, attributes)) = value.object() {
            return format!("object {class} {}", written(attributes));
        } else if let Some(Thing::Bytes(bytes)) = value.thing() {
            return format!("b\"{}\"", bytes.escape_ascii());
        } else if let Some(items) = value.items() {
            let items = list(items.map(written).collect());
            return if matches!(value.thing(), Some(Thing::Tuple(_))) {
                format!("({items})")
            } else {
                format!("[{items}]")
            };
        } else if let Some(entries) = value.entries() {
            return format!(
                "{{{}}}",
                list(entries.map(|(key, held)| format!("{}: {}", written(key), written(held))).collect())
            );
        }
        value.to_string()
    }

    fn read(pickle: &[u8]) -> String {
        match Pickle::read(pickle, LIMITS) {
            Ok(pickle) => written(pickle.root()),
            Err(error) => panic!("{}: {error}", pickle.escape_ascii()),
        }
    }

    fn refused(pickle: &[u8]) -> PickleError {
        match Pickle::read(pickle, LIMITS) {
            Ok(read) => panic!("{}: {}", pickle.escape_ascii(), written(read.root())),
            Err(error) => error,
        }
    }

    fn is_forbidden(pickle: &[u8]) -> bool {
        matches!(refused(pickle), PickleError::Forbidden { .. })
    }

    fn is_malformed(pickle: &[u8]) -> bool {
        matches!(refused(pickle), PickleError::Malformed { .. })
    }

    #[test]
    fn plain_values_of_every_protocol_are_read() {
        let pickles: [(&[u8], &str); 16] = [
            (b"(lp0\nI1\naF2.5\naI01\naI00\naNa.", "[1, 2.5, True, False, None]"),
            (b"(dp0\nVkey\np1\n(I1\nI2\ntp2\nsVother\np3\n(lp4\ns.", "{\"key\": (1, 2), \"other\": []}"),
            (b"(I1\nI2\nl.", "[1, 2]"),
            (b"(Vk\nI2\nd.", "{\"k\": 2}"),
            (b"\x80\x02]q\0(K\x01G@\x04\0\0\0\0\0\0\x88\x89Ne.", "[1, 2.5, True, False, None]"),
            (b"\x80\x02}q\0(U\x01aK\x01U\x01b)u.", "{\"a\": 1, \"b\": ()}"),
            (b"\x80\x02}q\0U\x01aK\x01s.", "{\"a\": 1}"),
            (b"\x80\x03C\x02a\xff.", "b\"a\\xff\""),
            (b"\x80\x02U\x02a\xff.", "b\"a\\xff\""),
            (b"c__builtin__\nbytearray\n(c_codecs\nencode\n(X\x03\0\0\0a\xc3\xbfX\x06\0\0\0latin1tRtR.", "b\"a\\xff\""),
            (b"\x80\x05\x96\x02\0\0\0\0\0\0\0a\xff.", "b\"a\\xff\""),
            // array.array('H', [1, 2, 65535]) as Python writes it in protocols 0, 2, 3 and 4.
            (b"carray\narray\np0\n(VH\np1\n(lp2\nI1\naI2\naI65535\natp3\nRp4\n.", "H[1, 2, 65535]"),
            (b"\x80\x02carray\narray\nq\0X\x01\0\0\0Hq\x01]q\x02(K\x01K\x02M\xff\xffe\x86q\x03Rq\x04.", "H[1, 2, 65535]"),
            (
                b"\x80\x03carray\n_array_reconstructor\nq\0(carray\narray\nq\x01X\x01\0\0\0Hq\x02K\x02C\x06\x01\0\x02\0\xff\xffq\x03tq\x04Rq\x05.",
                "H[1, 2, 65535]",
            ),
            (
                b"\x80\x04\x8c\x05array\x94\x8c\x14_array_reconstructor\x94\x93\x94(h\0\x8c\x05array\x93\x8c\x01I\x94K\x07C\x04\x01\0\0\x02t\x94R.",
                "I[16777218]",
            ),
            (b"carray\narray\n(U\x01B]tR.", "B[]"),
        ];
        for (pickle, expected) in pickles {
            assert_eq!(read(pickle), expected, "{}", pickle.escape_ascii());
        }
    }

    #[test]
    fn an_object_is_its_class_and_its_attributes() {
        let expected = "object 0 {\"a\": 1}";
        assert_eq!(read(b"\x80\x02ca.module\nThing\n)\x81q\0}U\x01aK\x01sb."), expected);
        assert_eq!(
            read(b"ccopy_reg\n_reconstructor\n(ca.module\nThing\nc__builtin__\nobject\nNtR(dVa\nI1\nsb."),
            expected
        );
        assert_eq!(read(b"(ia.module\nThing\n(dVa\nI1\nsb."), expected);
        assert_eq!(read(b"(ca.module\nThing\no}(U\x01aK\x01ub."), expected);
        assert_eq!(read(b"cb\nOther\n)\x81}b."), "object 1 {}");
        assert!(is_forbidden(b"ca.module\nOther\n)\x81."));
        assert!(is_forbidden(b"ca.module\nThing\n)R."), "no class is called");
        assert!(is_forbidden(b"ca.module\nThing\n(K\x01t\x81."));
        assert!(is_forbidden(b"(ca.module\nThing\nK\x01o."));
        assert!(is_malformed(b"ca.module\nThing\n)\x81Nb."));
        assert!(is_malformed(b"ca.module\nThing\n)\x81}b}b."), "attributes are given once");
        assert!(is_malformed(b"]}b."));
    }

    #[test]
    fn nothing_else_can_be_called_or_named() {
        for pickle in [
            &b"cos\nsystem\n(S'true'\ntR."[..],
            b"(S'true'\nios\nsystem\n.",
            b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
            b"cbuiltins\neval\n.",
            b"cbuiltins\nobject\n)R.",
            b"carray\narray\n(U\x01d]tR.",
            b"carray\narray\n(U\x01B]NtR.",
            b"carray\n_array_reconstructor\n(carray\narray\nU\x01HK\x0eC\x02abtR.",
            b"c_codecs\nencode\n(Vn\nVutf-16\ntR.",
            b"K\x01Q.",
            b"\x82\x01.",
            b"N0N.",
            b"N2.",
        ] {
            assert!(is_forbidden(pickle), "{}", pickle.escape_ascii());
        }
        assert!(is_malformed(b"carray\narray\n(U\x01B](M\0\x01etR."), "256 is no byte");
        assert!(is_malformed(b"carray\narray\n(U\x01H](K\x01NetR."));
        assert!(is_malformed(b"(K\x01d."), "a key without value");
        assert!(is_malformed(b"]K\x01K\x02s."));
        assert!(is_malformed(b"K\x01a."));
        assert!(is_malformed(b"](a."), "what lies below a mark is out of reach");
        assert!(is_malformed(b"e."));
    }

    #[test]
    fn what_is_shared_changes_everywhere() {
        assert_eq!(read(b"\x80\x02]q\0h\0\x86h\0(K\x05K\x06e\x86."), "(([5, 6], [5, 6]), [5, 6])");
        assert_eq!(
            read(b"\x80\x02}q\0h\0\x86h\0U\x01aK\x05s\x86."),
            "(({\"a\": 5}, {\"a\": 5}), {\"a\": 5})"
        );
        // An array took its numbers from the list; what the list gets later is not its own.
        let pickle = b"\x80\x02]q\0(K\x01K\x02ecarray\narray\nU\x01Hh\0\x86Rh\0K\x03a\x87.";
        assert_eq!(read(pickle), "([1, 2, 3], H[1, 2], [1, 2, 3])");
    }

    #[test]
    fn a_list_of_numbers_takes_in_anything() {
        assert_eq!(read(b"](K\x01M\x00\x01eNaJ\xff\xff\xff\xffaK\x02a."), "[1, 256, None, -1, 2]");
        assert_eq!(read(b"](J\xff\xff\xff\xffK\x01e."), "[-1, 1]");
        assert_eq!(read(b"](\x88K\x01e."), "[True, 1]");
        assert_eq!(read(b"](\x8a\x05\xff\xff\xff\xff\0e."), "[4294967295]");
        let packed = Pickle::read(b"](K\x01\x8a\x05\xff\xff\xff\xff\0e.", LIMITS).expect("a list");
        assert_eq!(packed.root().numbers(), Some(&[1, u32::MAX][..]));
        let wider = Pickle::read(b"](K\x01\x8a\x05\0\0\0\0\x01e.", LIMITS).expect("a list");
        assert_eq!(wider.root().numbers(), None);
        assert_eq!(Pickle::read(b"].", LIMITS).expect("a list").root().numbers(), Some(&[][..]));
    }

    #[test]
    fn the_last_of_equal_keys_counts() {
        let pickle = Pickle::read(b"}(U\x01aK\x01U\x01bK\x02U\x01aK\x03u.", LIMITS).expect("a dict");
        assert_eq!(pickle.root().entry("a").and_then(Value::integer), Some(3));
        assert!(pickle.root().entry("c").is_none());
    }

    #[test]
    fn a_deep_nest_and_a_list_in_itself_are_read_and_dropped() {
        let limits = Limits { values: 1 << 20, ..LIMITS };
        let tuples = [&b")"[..], &b"\x85".repeat(500_000), b"."].concat();
        assert!(Pickle::read(&tuples, limits).is_ok());
        let lists = [&b"]".repeat(500_000)[..], &b"a".repeat(499_999), b"."].concat();
        assert!(Pickle::read(&lists, limits).is_ok());
        let own = Pickle::read(b"]q\0h\0a.", limits).expect("a list in itself");
        assert_eq!(own.root().items().map(|items| items.len()), Some(1));
    }

    #[test]
    fn no_more_is_built_than_allowed() {
        let with = |piece: &[u8], times: usize| [b"](".as_slice(), &piece.repeat(times), b"e."].concat();
        // The list counts as one.
        for piece in [&b"N"[..], b"]", b")", b"U\0"] {
            assert!(Pickle::read(&with(piece, LIMITS.values - 1), LIMITS).is_ok());
            assert!(is_forbidden(&with(piece, LIMITS.values)));
        }
        let batch = with(b"K\x07", LIMITS.values - 1);
        assert!(Pickle::read(&batch, LIMITS).is_ok());
        assert!(is_forbidden(&with(b"K\x07", LIMITS.values)), "too many in hand");
        // Numbers that are in a list make room for others, until something else makes values of them.
        let list = [b"]".as_slice(), &[&b"("[..], &b"K\x07".repeat(500), b"e"].concat().repeat(100)].concat();
        let packed = [&list[..], b"."].concat();
        assert_eq!(
            Pickle::read(&packed, LIMITS).expect("a list").root().numbers().map(<[u32]>::len),
            Some(50_000)
        );
        assert!(is_forbidden(&[&list[..], b"Na."].concat()));
        let marks = [&b"(".repeat(LIMITS.values)[..], b"N."].concat();
        assert!(Pickle::read(&marks, LIMITS).is_ok());
        assert!(is_forbidden(&[b"(".as_slice(), &marks].concat()));
    }

    #[test]
    fn what_is_there_once_cannot_be_copied_often() {
        let bytes = [b"\x80\x03B\0\x10\0\0".as_slice(), &[7; 4096], b"q\0"].concat();
        let array = b"carray\n_array_reconstructor\n(carray\narray\nU\x01BK\0h\0tR";
        assert!(Pickle::read(&[&bytes[..], array, b"."].concat(), LIMITS).is_ok());
        assert!(is_forbidden(&[&bytes[..], array, array, b"."].concat()));
        // Each array shares the list's numbers, and each number more would part them.
        let list =
            [b"]q\0".as_slice(), &[&b"("[..], &b"K\x07".repeat(500), b"e"].concat().repeat(8)].concat();
        let again = b"carray\narray\nU\x01Hh\0\x86Rh\0K\x01a";
        assert!(Pickle::read(&[&list[..], &again.repeat(2), b"."].concat(), LIMITS).is_ok());
        assert!(is_forbidden(&[&list[..], &again.repeat(4), b"."].concat()));
        let text = [b"X\0\x10\0\0".as_slice(), &[b'a'; 4096], b"q\0"].concat();
        let encode = b"c_codecs\nencode\nh\0U\x06latin1\x86R";
        assert!(Pickle::read(&[&text[..], encode, b"."].concat(), LIMITS).is_ok());
        assert!(is_forbidden(&[&text[..], encode, encode, b"."].concat()));
    }

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.dict(|fields| {
            fields.word("plain");
            fields.tuple(5, |tuple| {
                tuple.none();
                tuple.boolean(true);
                tuple.float(-2.5);
                tuple.integer(-1);
                tuple.integer(1 << 40);
            });
            fields.word("empty");
            fields.tuple(3, |tuple| {
                tuple.tuple(0, |_| ());
                tuple.list(0..0, |list, number: i64| list.integer(number));
                tuple.dict(|_| ());
            });
            fields.word("many");
            fields.list(0..300, |list, number: i64| _ = list.text(&number.to_string()));
            fields.word("shared");
            let place = fields.list(0..3, |list, number| list.integer(number));
            fields.word("plain again");
            fields.recall(place);
            fields.word("arrays");
            fields.tuple(2, |tuple| {
                tuple.array('H', 0..2001);
                tuple.array('I', [u32::MAX, 65536, 0]);
            });
            fields.word("word");
            fields.word("plain");
        });
        let bytes = writer.finish();
        let pickle = Pickle::read(&bytes, Limits { values: 2000, ..LIMITS }).expect("to read it");
        let entry = |key| pickle.root().entry(key).expect(key);
        assert_eq!(written(entry("plain")), "(None, True, -2.5, -1, 1099511627776)");
        assert_eq!(written(entry("empty")), "((), [], {})");
        assert_eq!(entry("many").items().expect("a list").nth(299).and_then(Value::text), Some("299"));
        assert_eq!(entry("shared").slot_place(), entry("plain again").slot_place());
        let arrays: Vec<Value> = entry("arrays").items().expect("a tuple").collect();
        assert_eq!(arrays[0].array(), Some((b'H', &(0..2001).collect::<Vec<u32>>()[..])));
        assert_eq!(arrays[1].array(), Some((b'I', &[u32::MAX, 65536, 0][..])));
        assert_eq!(entry("word").text(), Some("plain"));
    }

    impl Value<'_> {
        fn slot_place(self) -> Option<u32> {
            match self.slot {
                Slot::Thing(place) => Some(place),
                _ => None,
            }
        }
    }

    #[test]
    fn a_pickle_that_ends_early_is_none() {
        let mut writer = Writer::default();
        writer.dict(|fields| {
            fields.word("key");
            fields.array('B', 0..20);
        });
        let bytes = writer.finish();
        for length in 0..bytes.len() {
            assert_eq!(refused(&bytes[..length]), PickleError::CutShort, "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Pickle::read(&bytes, LIMITS);
        }

        #[test]
        fn any_program_is_a_value_or_an_error(
            picks in proptest::collection::vec((any::<proptest::sample::Index>(), 0u8..4), 0..100),
        ) {
            let words: [&[u8]; 38] = [
                b"(", b"N", b"\x88", b"K\x01", b"M\x00\x02", b"J\xff\xff\xff\xff", b"\x8a\x05\0\0\0\0\x01", b"G@\0\0\0\0\0\0\0",
                b"U\x01H", b"X\x01\0\0\0B", b"C\x02ab", b")", b"\x85", b"\x86", b"\x87", b"t", b"]", b"l", b"a", b"e", b"}", b"d",
                b"s", b"u", b"q", b"h", b"\x94", b"carray\narray\n", b"carray\n_array_reconstructor\n",
                b"c_codecs\nencode\n", b"ccopyreg\n_reconstructor\n", b"ca.module\nThing\n", b"cbuiltins\nobject\n", b"R",
                b"\x81", b"o", b"ib\nOther\n", b"b",
            ];
            let mut program = Vec::new();
            for (pick, place) in picks {
                let word = words[pick.index(words.len())];
                program.extend(word);
                if matches!(word, b"q" | b"h") {
                    program.push(place);
                }
            }
            program.push(b'.');
            if let Ok(pickle) = Pickle::read(&program, LIMITS) {
                let _ = pickle.root().to_string();
            }
        }
    }
}
