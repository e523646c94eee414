//! The names of files that a GGUF file was split into.

/// One file of a set, by its name: `model-00002-of-00003.gguf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitName {
    /// What comes before the numbers.
    pub prefix: String,
    /// Which file of the set it is, from 1.
    pub number: usize,
    /// How many there are.
    pub count: usize,
}

impl SplitName {
    /// Reads a file's name; `None` where it is not one of a set.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(".gguf")?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| {
            let plain = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| text.parse::<usize>().ok()).flatten()
        };
        let (number, count) = (digits(number)?, digits(count)?);
        (1..=count).contains(&number).then(|| Self { prefix: prefix.to_owned(), number, count })
    }

    /// The names of all files of the set, in order.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        (1..=self.count).map(|number| format!("{}-{number:05}-of-{:05}.gguf", self.prefix, self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_set_are_read_and_made() {
        let name = SplitName::of("a-of-b-00002-of-00003.gguf").unwrap();
        assert_eq!((name.prefix.as_str(), name.number, name.count), ("a-of-b", 2, 3));
        assert_eq!(name.names().nth(2).unwrap(), "a-of-b-00003-of-00003.gguf");
        for name in [
            "a.gguf",
            "a-00002-of-00001.gguf",
            "a-00000-of-00001.gguf",
            "a-1-of-2.gguf",
            "a-0000１-of-00002.gguf",
        ] {
            assert_eq!(SplitName::of(name), None, "{name}");
        }
    }
}
