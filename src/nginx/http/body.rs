//! The body of a request, wherever nginx has put it.

use crate::api::{Piece, Pieces};
use crate::nginx::log;
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

/// The body piece by piece, as it is kept or as it comes.
pub struct Rest {
    r: *mut sys::ngx_http_request_t,
    /// What nginx keeps of it.
    parts: std::vec::IntoIter<Part<'static>>,
    /// What is left of the first of them.
    part: Option<Part<'static>>,
    /// nginx reads it when it is asked to. What it has read is taken at once.
    is_coming: bool,
}

/// Bytes of a piece.
const PIECE: usize = 64 * 1024;
const BAD_REQUEST: u16 = 400;

impl Rest {
    /// # Safety
    /// `r` is live, nginx has read its body or waits to be asked for more of it, and the buffers stay while the result
    /// lives.
    pub unsafe fn new(r: *mut sys::ngx_http_request_t) -> Rest {
        // SAFETY: the caller's promise.
        let is_coming = unsafe { (*r).reading_body() != 0 };
        // SAFETY: the caller's promise.
        let parts = if is_coming { Vec::new() } else { unsafe { parts(r) } };
        Rest { r, parts: parts.into_iter(), part: None, is_coming }
    }

    /// Asks nginx for more, if nothing was read yet.
    fn read(&mut self, out: &mut Vec<u8>) -> Result<Piece, u16> {
        // SAFETY: the request is live by `new`'s promise, and nothing else reads its body.
        unsafe {
            if take_read(self.r, out) {
                return Ok(Piece::Some);
            }
            if (*self.r).reading_body() != 0 {
                let rc = sys::ngx_http_read_unbuffered_request_body(self.r);
                if rc >= sys::NGX_HTTP_SPECIAL_RESPONSE as sys::ngx_int_t {
                    return Err(u16::try_from(rc).unwrap_or(BAD_REQUEST));
                }
                if take_read(self.r, out) {
                    return Ok(Piece::Some);
                }
            }
            if (*self.r).reading_body() != 0 {
                return Ok(Piece::Wait);
            }
            (*self.r).read_event_handler = Some(sys::ngx_http_block_reading);
            Ok(Piece::End)
        }
    }
}

impl Pieces for Rest {
    fn next(&mut self, out: &mut Vec<u8>) -> Result<Piece, u16> {
        if self.is_coming {
            return self.read(out);
        }
        match self.part.take().or_else(|| self.parts.next()) {
            None => return Ok(Piece::End),
            Some(Part::Memory(bytes)) => {
                let (piece, rest) = bytes.split_at(bytes.len().min(PIECE));
                out.extend_from_slice(piece);
                self.part = (!rest.is_empty()).then_some(Part::Memory(rest));
            }
            Some(Part::File { fd, from, to }) => {
                let end = to.min(from.saturating_add(PIECE as libc::off_t));
                if let Err(error) = append_file(out, fd, from, end) {
                    // SAFETY: the request is live by `new`'s promise, and its connection has a log.
                    unsafe { log_failure(self.r, &error) };
                    return Err(BAD_REQUEST);
                }
                self.part = (end < to).then_some(Part::File { fd, from: end, to });
            }
        }
        Ok(Piece::Some)
    }
}

/// Says in the log that a body can't be read.
///
/// # Safety
/// `r` is live.
pub unsafe fn log_failure(r: *mut sys::ngx_http_request_t, error: &io::Error) {
    // SAFETY: the caller's promise; a live request has a connection with a log.
    let log = unsafe { (*(*r).connection).log };
    // SAFETY: as above.
    unsafe { log::write(log, log::ERR, format_args!("can't read the request's body: {error}")) };
}

/// Takes what nginx has read into its buffers, and gives it these back. `false`: it has read nothing.
///
/// # Safety
/// `r` is live, and its body is being read without being kept.
unsafe fn take_read(r: *mut sys::ngx_http_request_t, out: &mut Vec<u8>) -> bool {
    let begin = out.len();
    // SAFETY: the caller's promise; a chain ends with null, and a buffer in memory has `pos` at or before `last`. A link
    // that was taken out of the chain goes to the pool's free ones, as nginx's own macro does it.
    unsafe {
        let Some(body) = (*r).request_body.as_mut() else { return false };
        while let Some(chain) = body.bufs.as_mut() {
            let buffer = &mut *chain.buf;
            if !buffer.pos.is_null() && buffer.last > buffer.pos {
                let len = buffer.last.offset_from_unsigned(buffer.pos);
                out.extend_from_slice(std::slice::from_raw_parts(buffer.pos, len));
                buffer.pos = buffer.last;
            }
            body.bufs = chain.next;
            chain.next = (*(*r).pool).chain;
            (*(*r).pool).chain = chain;
        }
    }
    out.len() > begin
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
