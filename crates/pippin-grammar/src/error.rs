/// What is wrong with a constraint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrammarError {
    /// A JSON schema that cannot be followed.
    #[error("the JSON schema cannot be followed at {path}: {problem}")]
    Schema {
        /// The place in the schema, as a JSON pointer behind `#`.
        path: String,
        /// What is wrong there.
        problem: String,
    },
    /// A regular expression that cannot be followed.
    #[error("the regular expression cannot be followed: {problem}")]
    Regex {
        /// What is wrong with it.
        problem: String,
    },
    /// A list of choices that is none.
    #[error("the choices cannot be followed: {problem}")]
    Choice {
        /// What is wrong with them.
        problem: String,
    },
    /// A grammar that cannot be followed.
    #[error("the grammar cannot be followed: {problem}")]
    Grammar {
        /// What is wrong with it, with line and column where they are known.
        problem: String,
    },
    /// More than is compiled.
    #[error("the {what} is too large: it has {found} {unit}, and {limit} are allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Of what it has too many.
        unit: &'static str,
        /// How many.
        found: usize,
        /// How many it may have.
        limit: usize,
    },
    /// Compiling took too long.
    #[error("the {what} is too complex: it was not compiled in {seconds} s")]
    TooSlow {
        /// What was compiled.
        what: &'static str,
        /// The limit of time.
        seconds: u64,
    },
    /// Too many constraints are being compiled.
    #[error("too many constraints are being compiled at the same time")]
    Busy,
    /// A marker that cannot be waited for.
    #[error("the constraint cannot begin after {marker:?}: {problem}")]
    Marker {
        /// The marker.
        marker: String,
        /// Why not.
        problem: &'static str,
    },
    /// The vocabulary cannot be used for masks.
    #[error("no constraint can be put on this model: {problem}")]
    Vocabulary {
        /// Why not.
        problem: String,
    },
    /// An answer could not go on.
    #[error("the constraint could not be followed any further: {problem}")]
    Step {
        /// Why not.
        problem: String,
    },
}

impl GrammarError {
    /// What the user can do about the error, when there is something to say.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Schema { .. } => {
                "leave the keyword out or put it differently, and check the answer for what it said"
            }
            Self::Regex { .. } => {
                "look-around and back-references are not supported; an expression always matches as a whole"
            }
            Self::Choice { .. } => "give at least one text, and no empty one",
            Self::Grammar { .. } => {
                "the notation is Lark's, in llguidance's variant; a rule `start` is needed"
            }
            Self::TooLarge { .. } | Self::TooSlow { .. } => "split it, or ask for less at a time",
            Self::Busy => "try again in a moment",
            Self::Marker { .. } => "use a special token of the model, such as </think>",
            Self::Vocabulary { .. } | Self::Step { .. } => return None,
        })
    }
}
