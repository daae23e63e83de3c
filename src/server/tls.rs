//! Certificates from files, replaced while the server runs.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::config::Tls;
use crate::error::{Error, Result, Subject};

/// The certificate in use. Handshakes that have begun keep the one they began with.
#[derive(Debug)]
pub struct Certificates(ArcSwap<CertifiedKey>);

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// With the file and what is wrong with it.
    pub fn load(config: &Tls) -> Result<Arc<Self>> {
        Ok(Arc::new(Self(ArcSwap::new(read(config)?))))
    }

    /// Reads the files again; on an error the certificate in use stays.
    ///
    /// # Errors
    /// As [`Certificates::load`].
    pub fn reload(&self, config: &Tls) -> Result<()> {
        self.0.store(read(config)?);
        Ok(())
    }

    /// The TLS settings that serve it: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// When the crypto provider refuses the protocol versions.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<rustls::ServerConfig>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal(Subject::Config, error))?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::<Self>::clone(self));
        // A client that comes back saves the signature, whichever of many it is: without this, 256 are remembered.
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| Error::internal(Subject::Config, error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn read(config: &Tls) -> Result<Arc<CertifiedKey>> {
    let wrong = |file: &std::path::Path, what: String| Error::invalid(Subject::Config, format!("{}: {what}", file.display()));
    let (Some(cert_file), Some(key_file)) = (&config.cert_file, &config.key_file) else {
        return Err(Error::invalid(Subject::Config, "server.tls needs cert_file and key_file"));
    };
    let chain = CertificateDer::pem_file_iter(cert_file)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|error| wrong(cert_file, format!("no PEM certificate chain: {error}")))?;
    if chain.is_empty() {
        return Err(wrong(cert_file, "holds no certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| wrong(key_file, format!("no PEM private key: {error}")))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(chain, key, &provider)
        .map_err(|error| wrong(key_file, format!("key and certificate do not fit: {error}")))?;
    Ok(Arc::new(certified))
}
