//! Plain values written as pickles.

use std::borrow::Cow;
use std::collections::HashMap;

use super::opcode;

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
