//! The kernels compile for every architecture, where there is a compiler; no device is needed.

use pippin_cuda::{ARCHITECTURES, compile_flash_for, compile_for};

#[test]
fn kernels_compile_for_every_architecture() {
    for architecture in ARCHITECTURES {
        // Heads that are narrow, and such as kernels treat as wide.
        let flash = [64, 128, 256].map(|width| compile_flash_for(architecture, width));
        for binary in [compile_for(architecture)].into_iter().chain(flash) {
            match binary {
                None => eprintln!("skipped: NVRTC is not installed"),
                Some(binary) => {
                    assert!(binary.expect(architecture).starts_with(b"\x7fELF"), "{architecture}")
                }
            }
        }
    }
}
