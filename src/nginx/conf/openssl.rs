//! What only the OpenSSL that nginx links can read.

use nginx_sys as sys;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{null, null_mut};

/// The IANA names of the cipher suites that a list in OpenSSL's syntax stands for, in its order. `None`: it names none,
/// or isn't a list.
pub fn suites(list: &str) -> Option<Vec<String>> {
    let list = CString::new(list).ok()?;
    // SAFETY: each pointer is checked before use, the stack belongs to the context and is read before it is freed, and
    // the names are constants of the library.
    unsafe {
        let context = sys::SSL_CTX_new(sys::TLS_client_method());
        if context.is_null() {
            return None;
        }
        let mut names = None;
        if sys::SSL_CTX_set_cipher_list(context, list.as_ptr()) == 1 {
            let stack = sys::SSL_CTX_get_ciphers(context).cast::<sys::OPENSSL_STACK>();
            let count = if stack.is_null() { 0 } else { sys::OPENSSL_sk_num(stack) };
            names = Some((0..count).filter_map(|n| name(sys::OPENSSL_sk_value(stack, n).cast())).collect());
        }
        sys::SSL_CTX_free(context);
        sys::ERR_clear_error();
        names
    }
}

/// # Safety
/// `cipher` is null or one of the library's.
unsafe fn name(cipher: *const sys::SSL_CIPHER) -> Option<String> {
    if cipher.is_null() {
        return None;
    }
    // SAFETY: a cipher of the library; the name is null or a constant.
    unsafe {
        let name = sys::SSL_CIPHER_standard_name(cipher);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// The private key of an encrypted PEM, as PEM without encryption. `None`: this isn't the passphrase.
pub fn decrypted_key(pem: &[u8], passphrase: &[u8]) -> Option<Vec<u8>> {
    let len = c_int::try_from(pem.len()).ok()?;
    let mut passphrase = passphrase;
    // SAFETY: each pointer is checked before use and freed once; the callback gets the slice that lives until the call
    // is over; the memory of the last BIO is copied before it is freed.
    unsafe {
        let input = sys::BIO_new_mem_buf(pem.as_ptr().cast(), len);
        if input.is_null() {
            return None;
        }
        let key = sys::PEM_read_bio_PrivateKey(input, null_mut(), Some(give), (&raw mut passphrase).cast());
        sys::BIO_free(input);
        sys::ERR_clear_error();
        if key.is_null() {
            return None;
        }
        let output = sys::BIO_new(sys::BIO_s_mem());
        let mut plain = None;
        if !output.is_null() {
            if sys::PEM_write_bio_PrivateKey(output, key, null(), null(), 0, None, null_mut()) == 1 {
                plain = content(output);
            }
            sys::BIO_free(output);
        }
        sys::EVP_PKEY_free(key);
        plain
    }
}

/// # Safety
/// `bio` is a live one in memory.
unsafe fn content(bio: *mut sys::BIO) -> Option<Vec<u8>> {
    let mut data: *mut c_char = null_mut();
    // SAFETY: the call sets `data` to the BIO's memory, and returns how much there is.
    unsafe {
        let len = sys::BIO_ctrl(bio, sys::BIO_CTRL_INFO as c_int, 0, (&raw mut data).cast());
        let len = usize::try_from(len).ok().filter(|len| *len > 0 && !data.is_null())?;
        Some(std::slice::from_raw_parts(data.cast::<u8>(), len).to_vec())
    }
}

/// Gives OpenSSL the passphrase; one that doesn't fit can't be the right one.
unsafe extern "C" fn give(buffer: *mut c_char, size: c_int, _writing: c_int, passphrase: *mut c_void) -> c_int {
    // SAFETY: `decrypted_key` passes the slice, and OpenSSL a buffer of `size` bytes.
    unsafe {
        let passphrase = *passphrase.cast::<&[u8]>();
        match c_int::try_from(passphrase.len()) {
            Ok(len) if len <= size => {
                buffer.cast::<u8>().copy_from_nonoverlapping(passphrase.as_ptr(), passphrase.len());
                len
            }
            _ => -1,
        }
    }
}
