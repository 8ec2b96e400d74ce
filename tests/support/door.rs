//! Who a server lets in.

use pgsteer::sandbox::Server;

/// A server that lets nobody in to whom a rule applies.
pub struct Door<'s> {
    server: &'s Server,
    rules: String,
}

impl<'s> Door<'s> {
    /// Shuts it; nobody who is inside has to leave.
    pub fn shut(server: &'s Server, rule: &str) -> Self {
        Self::guard(server, &format!("{rule} reject"))
    }

    /// Puts this line before all others.
    pub fn guard(server: &'s Server, line: &str) -> Self {
        let rules = std::fs::read_to_string(server.data().join("pg_hba.conf")).unwrap();
        let door = Self { server, rules };
        door.write(&format!("{line}\n{}", door.rules));
        door
    }

    /// Lets everybody in again.
    pub fn open(&self) {
        self.write(&self.rules);
    }

    fn write(&self, rules: &str) {
        std::fs::write(self.server.data().join("pg_hba.conf"), rules).unwrap();
        self.server.rows("SELECT pg_reload_conf()").unwrap();
    }
}
