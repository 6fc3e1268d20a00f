//! The wire format of protocol buffers, as far as a SentencePiece model needs it.
//!
//! A message is a list of numbered fields that lie one after the other in the bytes; reading never
//! copies and every length is checked against what is left. Knows no schema: the caller matches
//! field numbers. Format: protobuf.dev, "Encoding".

/// One field's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Field<'a> {
    /// A whole number, a truth value or an enum.
    Number(u64),
    /// Four bytes: a `float`.
    Four([u8; 4]),
    /// Text, bytes or a message.
    Bytes(&'a [u8]),
    /// Eight bytes, which no field that we read has.
    Eight,
}

impl<'a> Field<'a> {
    pub(crate) fn number(self) -> Result<u64, String> {
        match self {
            Field::Number(number) => Ok(number),
            other => Err(format!("expected a number, found {}", other.kind())),
        }
    }

    /// An `int32`; negative ones are written as 64 bits.
    pub(crate) fn signed(self) -> Result<i64, String> {
        Ok(self.number()? as i64)
    }

    pub(crate) fn flag(self) -> Result<bool, String> {
        Ok(self.number()? != 0)
    }

    pub(crate) fn float(self) -> Result<f32, String> {
        match self {
            Field::Four(bytes) => Ok(f32::from_le_bytes(bytes)),
            other => Err(format!("expected a float, found {}", other.kind())),
        }
    }

    pub(crate) fn bytes(self) -> Result<&'a [u8], String> {
        match self {
            Field::Bytes(bytes) => Ok(bytes),
            other => Err(format!("expected bytes, found {}", other.kind())),
        }
    }

    pub(crate) fn text(self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes()?).map_err(|e| format!("text is not UTF-8: {e}"))
    }

    fn kind(self) -> &'static str {
        match self {
            Field::Number(_) => "a number",
            Field::Four(_) => "four bytes",
            Field::Bytes(_) => "bytes",
            Field::Eight => "eight bytes",
        }
    }
}

/// The fields of a message, in the order of the bytes. Ends after the first error.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        let count = usize::try_from(count).ok().filter(|&count| count <= self.rest.len());
        let Some(count) = count else { return Err("a field reaches beyond the end".into()) };
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(taken)
    }

    /// Seven bits a byte, the lowest first; the top bit says that more follow.
    fn varint(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("a number is longer than 64 bits".into())
    }

    fn field(&mut self) -> Result<(u64, Field<'a>), String> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Field::Number(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Eight
            }
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Field::Four([bytes[0], bytes[1], bytes[2], bytes[3]])
            }
            other => return Err(format!("wire type {other} is not known")),
        };
        match tag >> 3 {
            0 => Err("a field has the number 0".into()),
            number => Ok((number, value)),
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::{Field, Fields};

    #[test]
    fn fields_and_their_ends() {
        let check = |bytes: &[u8], expect: &str| {
            let read: Result<Vec<_>, _> = Fields::new(bytes).collect();
            assert_eq!(format!("{read:?}"), expect);
        };
        check(&[], "Ok([])");
        check(&[0x08, 0x96, 0x01], "Ok([(1, Number(150))])");
        check(&[0x12, 2, b'h', b'i'], "Ok([(2, Bytes([104, 105]))])");
        check(&[0x1d, 0, 0, 0x80, 0x3f], "Ok([(3, Four([0, 0, 128, 63]))])");
        check(&[0x12, 3, b'h', b'i'], "Err(\"a field reaches beyond the end\")");
        check(&[0x08, 0x80], "Err(\"a field reaches beyond the end\")");
        check(&[0x0b], "Err(\"wire type 3 is not known\")");
        check(&[0x00, 1], "Err(\"a field has the number 0\")");
        check(
            &[[0x08].as_slice(), &[0xff; 10]].concat(),
            "Err(\"a number is longer than 64 bits\")",
        );
        assert_eq!(Field::Four([0, 0, 0x80, 0x3f]).float(), Ok(1.0));
        assert_eq!(Field::Number(u64::MAX).signed(), Ok(-1));
    }
}
