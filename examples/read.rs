// SPDX-License-Identifier: MIT
//! The library from Rust, without a crate: size and first bytes of the disk
//! that an image shows.
//!
//!     rustc read.rs $(pkg-config --libs-only-L lamella) -l lamella
//!     ./read IMAGE

use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::{env, fmt, process, ptr};

/// struct lam_error
#[repr(C)]
struct Error {
    code: c_int,
    message: [c_char; 1020],
}

impl Error {
    fn new() -> Error {
        Error { code: 0, message: [0; 1020] }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let text = unsafe { CStr::from_ptr(self.message.as_ptr()) };
        write!(f, "{}", text.to_string_lossy())
    }
}

extern "C" {
    fn lam_image_open(name: *const c_char, options: *const c_void,
                      out: *mut *mut c_void, err: *mut Error) -> c_int;
    fn lam_image_close(image: *mut c_void, err: *mut Error) -> c_int;
    fn lam_image_size(image: *const c_void) -> u64;
    fn lam_image_read(image: *mut c_void, buf: *mut c_void, length: u64,
                      offset: u64, err: *mut Error) -> c_int;
}

/// An image open for reading.
struct Image(*mut c_void);

// Any number of threads may use an image at once; only Drop wants it alone.
unsafe impl Send for Image {}
unsafe impl Sync for Image {}

impl Image {
    fn open(name: &CStr) -> Result<Image, Error> {
        let (mut image, mut err) = (ptr::null_mut(), Error::new());
        let rc = unsafe {
            lam_image_open(name.as_ptr(), ptr::null(), &mut image, &mut err)
        };
        if rc < 0 { Err(err) } else { Ok(Image(image)) }
    }

    fn size(&self) -> u64 {
        unsafe { lam_image_size(self.0) }
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        let mut err = Error::new();
        let rc = unsafe {
            lam_image_read(self.0, buf.as_mut_ptr().cast(), buf.len() as u64,
                           offset, &mut err)
        };
        if rc < 0 { Err(err) } else { Ok(()) }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        unsafe { lam_image_close(self.0, ptr::null_mut()) };
    }
}

fn show(name: &CStr) -> Result<(), Error> {
    let image = Image::open(name)?;
    let size = image.size();
    let mut first = vec![0; size.min(16) as usize];

    image.read(&mut first, 0)?;
    println!("{} bytes, first: {}", size, first.escape_ascii());
    Ok(())
}

fn main() {
    let name = env::args_os().nth(1).expect("usage: read IMAGE");
    let name = CString::new(name.as_bytes()).expect("a name without NUL");

    if let Err(err) = show(&name) {
        eprintln!("{err}");
        process::exit(1);
    }
}
