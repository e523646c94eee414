//! The kernels compile for every architecture, where there is a compiler; no device is needed.

use pippin_cuda::{ARCHITECTURES, compile_for};

#[test]
fn kernels_compile_for_every_architecture() {
    for architecture in ARCHITECTURES {
        match compile_for(architecture) {
            None => eprintln!("skipped: NVRTC is not installed"),
            Some(binary) => assert!(binary.expect(architecture).starts_with(b"\x7fELF"), "{architecture}"),
        }
    }
}
