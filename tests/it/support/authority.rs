//! A certificate authority of a test's own.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use hubbub::stream::Authorities;

/// An authority of the test's own, and what it signed for 127.0.0.1.
pub(crate) struct Authority {
    folder: PathBuf,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("tls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let authority = Self { folder };
        authority.openssl(&["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test"]);
        let mut signed = vec![
            "-keyout",
            "server.key",
            "-out",
            "server.pem",
            "-subj",
            "/CN=server",
        ];
        signed.extend(["-CA", "ca.pem", "-CAkey", "ca.key"]);
        signed.extend(["-addext", "subjectAltName=IP:127.0.0.1"]);
        signed.extend(["-addext", "basicConstraints=critical,CA:FALSE"]);
        authority.openssl(&signed);
        authority
    }

    fn openssl(&self, arguments: &[&str]) {
        let key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let status = Command::new("openssl")
            .current_dir(&self.folder)
            .args(["req", "-x509", "-days", "2"])
            .args(key)
            .args(arguments)
            .stderr(Stdio::null())
            .status();
        assert!(status.expect("openssl can be started").success());
    }

    pub(crate) fn file(&self, name: &str) -> String {
        let path = self.folder.join(name);
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    /// For a client of ours.
    pub(crate) fn authorities(&self) -> Authorities {
        Authorities::read(Some(self.file("ca.pem").as_ref())).expect("its own certificate")
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
