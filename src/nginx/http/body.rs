//! The body of a request, wherever nginx has put it.

use crate::api::Pieces;
use nginx_sys as sys;
use std::borrow::Cow;
use std::io;

/// All of the body. nginx keeps it in one buffer, in several, or in a temporary file, as it fits; there is none at all in
/// a subrequest of a request without one.
///
/// # Safety
/// `r` is live, its body was read, and the buffers stay while the result lives.
pub unsafe fn read<'a>(r: *mut sys::ngx_http_request_t) -> io::Result<Cow<'a, [u8]>> {
    // SAFETY: the caller's promise.
    let parts = unsafe { parts(r) };
    match parts.as_slice() {
        [] => Ok(Cow::Borrowed(&[])),
        [Part::Memory(only)] => Ok(Cow::Borrowed(only)),
        _ => joined(&parts).map(Cow::Owned),
    }
}

/// The body piece by piece.
pub struct Rest {
    parts: std::vec::IntoIter<Part<'static>>,
    /// What is left of the first of them.
    part: Option<Part<'static>>,
}

/// Bytes of a piece.
const PIECE: usize = 64 * 1024;

impl Rest {
    /// # Safety
    /// `r` is live, its body was read, and the buffers stay while the result lives.
    pub unsafe fn new(r: *mut sys::ngx_http_request_t) -> Rest {
        // SAFETY: the caller's promise.
        Rest { parts: unsafe { parts(r) }.into_iter(), part: None }
    }
}

impl Pieces for Rest {
    fn next(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        match self.part.take().or_else(|| self.parts.next()) {
            None => return Ok(false),
            Some(Part::Memory(bytes)) => {
                let (piece, rest) = bytes.split_at(bytes.len().min(PIECE));
                out.extend_from_slice(piece);
                self.part = (!rest.is_empty()).then_some(Part::Memory(rest));
            }
            Some(Part::File { fd, from, to }) => {
                let end = to.min(from.saturating_add(PIECE as libc::off_t));
                append_file(out, fd, from, end)?;
                self.part = (end < to).then_some(Part::File { fd, from: end, to });
            }
        }
        Ok(true)
    }
}

/// A buffer's content.
enum Part<'a> {
    Memory(&'a [u8]),
    File { fd: i32, from: libc::off_t, to: libc::off_t },
}

unsafe fn parts<'a>(r: *mut sys::ngx_http_request_t) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    // SAFETY: the caller's promise; a chain ends with null, and a buffer in memory has `pos` at or before `last`.
    unsafe {
        let Some(body) = (*r).request_body.as_ref() else { return parts };
        let mut link = body.bufs.as_ref();
        while let Some(chain) = link {
            let buffer = &*chain.buf;
            if buffer.in_file() != 0 && !buffer.file.is_null() {
                parts.push(Part::File { fd: (*buffer.file).fd, from: buffer.file_pos, to: buffer.file_last });
            } else if !buffer.pos.is_null() && buffer.last > buffer.pos {
                let len = buffer.last.offset_from_unsigned(buffer.pos);
                parts.push(Part::Memory(std::slice::from_raw_parts(buffer.pos, len)));
            }
            link = chain.next.as_ref();
        }
    }
    parts
}

fn joined(parts: &[Part<'_>]) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    for part in parts {
        match *part {
            Part::Memory(bytes) => {
                all.try_reserve(bytes.len())?;
                all.extend_from_slice(bytes);
            }
            Part::File { fd, from, to } => append_file(&mut all, fd, from, to)?,
        }
    }
    Ok(all)
}

fn append_file(all: &mut Vec<u8>, fd: i32, from: libc::off_t, to: libc::off_t) -> io::Result<()> {
    let len = usize::try_from(to.saturating_sub(from)).map_err(io::Error::other)?;
    let begin = all.len();
    all.try_reserve(len)?;
    all.resize(begin + len, 0);
    let (mut rest, mut at) = (&mut all[begin..], from);
    while !rest.is_empty() {
        // SAFETY: writes at most `rest.len()` bytes to a live slice.
        let n = unsafe { libc::pread(fd, rest.as_mut_ptr().cast(), rest.len(), at) };
        match usize::try_from(n) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                rest = &mut rest[n..];
                at += n as libc::off_t;
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}
