//! Input as a script: a list of things that happen, each with a body. So what is changed at random stays a conversation.
//!
//! An item is a type (one byte), the length of its body (u16, little-endian; cut to what is there) and the body. A type
//! below [`CUT`] is that of a frame, whose length is made to fit; so the input spends no effort on lengths.

/// Received bytes come in pieces of so many (u16) from now on.
pub const CUT: u8 = 0xf0;
/// Bytes as they are, no frame.
pub const RAW: u8 = 0xf1;
/// So many milliseconds (u32) pass.
pub const WAIT: u8 = 0xf2;
/// The node itself writes: the body's first byte says what, the rest is the key.
pub const WRITE: u8 = 0xf3;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    pub kind: u8,
    pub body: &'a [u8],
}

impl Item<'_> {
    /// The body as a number.
    pub fn number(&self) -> u64 {
        self.body.iter().take(4).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// What the other side sends, if this is something sent.
    pub fn wire(&self) -> Option<Vec<u8>> {
        match self.kind {
            RAW => Some(self.body.to_vec()),
            CUT..=u8::MAX => None,
            kind => {
                let mut bytes = (self.body.len() as u32 + 1).to_le_bytes().to_vec();
                bytes.push(kind);
                bytes.extend_from_slice(self.body);
                Some(bytes)
            }
        }
    }
}

/// The items of a script, to its end.
pub fn items(mut data: &[u8]) -> Vec<Item<'_>> {
    let mut items = Vec::new();
    while let Some(([kind, low, high], rest)) = data.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (body, rest) = rest.split_at(length);
        items.push(Item { kind: *kind, body });
        data = rest;
    }
    items
}

/// Appends an item. A body that is too long is cut.
pub fn put(script: &mut Vec<u8>, kind: u8, body: &[u8]) {
    let length = body.len().min(usize::from(u16::MAX));
    script.push(kind);
    script.extend_from_slice(&(length as u16).to_le_bytes());
    script.extend_from_slice(&body[..length]);
}

/// Appends frames as they stand on the wire.
pub fn put_frames(script: &mut Vec<u8>, mut frames: &[u8]) {
    while let Some((prefix, rest)) = frames.split_first_chunk::<4>() {
        let (frame, rest) = rest.split_at(u32::from_le_bytes(*prefix) as usize);
        put(script, frame[0], &frame[1..]);
        frames = rest;
    }
}
