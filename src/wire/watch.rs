//! Where in a stream of messages one is, without keeping any of them.
//!
//! What is relayed byte for byte must still be known to be between two messages before a word of
//! our own may be put in.

use crate::wire::frame;
use crate::wire::frame::{FrameError, HEADER};

/// Goes along with a stream of messages.
#[derive(Debug, Default)]
pub struct Watch {
    /// As much of the present message's header as has arrived.
    header: Vec<u8>,
    /// Bytes of the present message that have not arrived.
    rest: usize,
}

impl Watch {
    /// Goes over the next bytes of the stream, and tells the tag of each message that begins.
    ///
    /// # Errors
    /// [`FrameError`] if they are no messages: from then on nothing is known.
    pub fn pass(&mut self, bytes: &[u8], begins: &mut dyn FnMut(u8)) -> Result<(), FrameError> {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            if self.rest > 0 {
                let (inside, behind) = bytes.split_at(self.rest.min(bytes.len()));
                self.rest -= inside.len();
                bytes = behind;
                continue;
            }
            let (head, behind) = bytes.split_at((HEADER - self.header.len()).min(bytes.len()));
            self.header.extend_from_slice(head);
            bytes = behind;
            if let Some(header) = frame::peek(&self.header)? {
                begins(header.tag);
                self.rest = header.total - HEADER;
                self.header.clear();
            }
        }
        Ok(())
    }

    /// Whether the last message has come to its end.
    pub fn is_between(&self) -> bool {
        self.rest == 0 && self.header.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_told_once_in_every_split() {
        let stream = b"Z\0\0\0\x05Id\0\0\0\x08ZZZZH\0\0\0\x04";
        let ends = [0, 6, 15, 20];
        for split in 0..=stream.len() {
            let mut watch = Watch::default();
            let mut told = Vec::new();
            watch.pass(&stream[..split], &mut |tag| told.push(tag)).unwrap();
            assert_eq!(watch.is_between(), ends.contains(&split), "{split}");
            watch.pass(&stream[split..], &mut |tag| told.push(tag)).unwrap();
            assert_eq!(told, b"ZdH", "{split}");
            assert!(watch.is_between());
        }
        assert!(Watch::default().pass(b"Z\0\0\0\x03", &mut |_| ()).is_err());
    }
}
