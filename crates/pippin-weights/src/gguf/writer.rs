//! Writes GGUF files, for tests of what reads them.

use super::types::GgmlType;

/// A GGUF file of version 3 in the making.
#[derive(Debug, Clone, Default)]
pub struct GgufWriter {
    keys: u64,
    metadata: Vec<u8>,
    infos: Vec<u8>,
    tensors: u64,
    data: Vec<u8>,
}

impl GgufWriter {
    /// A file without metadata and tensors.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A key with a value, given as the number of its type and its bytes.
    pub fn raw(&mut self, key: &str, kind: u32, value: &[u8]) -> &mut Self {
        self.keys += 1;
        self.metadata.extend(string(key));
        self.metadata.extend(kind.to_le_bytes());
        self.metadata.extend_from_slice(value);
        self
    }

    /// A key with a `u32`.
    pub fn u32(&mut self, key: &str, value: u32) -> &mut Self {
        self.raw(key, 4, &value.to_le_bytes())
    }

    /// A key with an `f32`.
    pub fn f32(&mut self, key: &str, value: f32) -> &mut Self {
        self.raw(key, 6, &value.to_le_bytes())
    }

    /// A key with a truth value.
    pub fn bool(&mut self, key: &str, value: bool) -> &mut Self {
        self.raw(key, 7, &[u8::from(value)])
    }

    /// A key with a string.
    pub fn string(&mut self, key: &str, value: &str) -> &mut Self {
        self.raw(key, 8, &string(value))
    }

    /// A key with a list of values whose bytes are given.
    pub fn list(&mut self, key: &str, kind: u32, values: &[Vec<u8>]) -> &mut Self {
        self.raw(key, 9, &list(kind, values))
    }

    /// A key with a list of strings.
    pub fn strings(&mut self, key: &str, values: &[&str]) -> &mut Self {
        self.list(key, 8, &values.iter().map(|value| string(value)).collect::<Vec<_>>())
    }

    /// A key with a list of `i32`.
    pub fn i32s(&mut self, key: &str, values: &[i32]) -> &mut Self {
        self.list(key, 5, &values.iter().map(|value| value.to_le_bytes().to_vec()).collect::<Vec<_>>())
    }

    /// A key with a list of `f32`.
    pub fn f32s(&mut self, key: &str, values: &[f32]) -> &mut Self {
        self.list(key, 6, &values.iter().map(|value| value.to_le_bytes().to_vec()).collect::<Vec<_>>())
    }

    /// A tensor, its sizes slowest first.
    pub fn tensor(&mut self, name: &str, kind: GgmlType, shape: &[usize], bytes: &[u8]) -> &mut Self {
        let offset = self.data.len() as u64;
        self.entry(name, kind.id(), shape, offset);
        self.data.extend_from_slice(bytes);
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        self
    }

    /// A tensor's entry without its bytes.
    pub fn entry(&mut self, name: &str, kind: u32, shape: &[usize], offset: u64) -> &mut Self {
        self.tensors += 1;
        self.infos.extend(string(name));
        self.infos.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|size| self.infos.extend((*size as u64).to_le_bytes()));
        self.infos.extend(kind.to_le_bytes());
        self.infos.extend(offset.to_le_bytes());
        self
    }

    /// The file.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(self.tensors.to_le_bytes());
        bytes.extend(self.keys.to_le_bytes());
        bytes.extend_from_slice(&self.metadata);
        bytes.extend_from_slice(&self.infos);
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend_from_slice(&self.data);
        bytes
    }
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn list(kind: u32, values: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend((values.len() as u64).to_le_bytes());
    values.iter().for_each(|value| bytes.extend_from_slice(value));
    bytes
}
