//! What the operator says of functions: `routing.read_functions`, `routing.write_functions`.

use super::facts::Name;

/// The operator's word on functions, which goes before labels and shipped lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FunctionLists {
    read: Vec<Name>,
    write: Vec<Name>,
}

impl FunctionLists {
    /// Takes names, with or without a schema. A function that both lists name needs the primary.
    pub fn new<S: AsRef<str>>(read: &[S], write: &[S]) -> Self {
        let names = |list: &[S]| list.iter().map(|name| parse(name.as_ref())).collect();
        Self { read: names(read), write: names(write) }
    }

    /// Whether the call may run on a standby whatever the catalog says. A name that was listed
    /// with its schema allows only calls that say it.
    pub fn reads(&self, call: &Name) -> bool {
        self.read.iter().any(|listed| {
            listed.name == call.name && (listed.schema.is_none() || listed.schema == call.schema)
        })
    }

    /// Whether the call needs the primary whatever the catalog says: of a name that was listed
    /// with its schema, calls without one may mean it too.
    pub fn writes(&self, call: &Name) -> bool {
        self.write.iter().any(|listed| {
            let same =
                listed.schema.is_none() || call.schema.is_none() || listed.schema == call.schema;
            listed.name == call.name && same
        })
    }
}

fn parse(name: &str) -> Name {
    let name = name.trim().to_lowercase();
    match name.rsplit_once('.') {
        Some((schema, name)) => Name { schema: Some(schema.into()), name: name.into() },
        None => Name::bare(&name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_narrows_what_is_allowed_and_not_what_is_refused() {
        let lists = FunctionLists::new(&["audit.seen", "bump"], &["App.Touch"]);
        let call = |schema: Option<&str>, name: &str| Name {
            schema: schema.map(Into::into),
            name: name.into(),
        };
        assert!(lists.reads(&call(Some("audit"), "seen")));
        assert!(!lists.reads(&call(None, "seen")));
        assert!(lists.reads(&call(Some("any"), "bump")) && lists.reads(&call(None, "bump")));
        assert!(lists.writes(&call(Some("app"), "touch")) && lists.writes(&call(None, "touch")));
        assert!(!lists.writes(&call(Some("other"), "touch")));
    }
}
