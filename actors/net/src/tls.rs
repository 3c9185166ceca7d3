//! TLS below the hello exchange: a self-signed, short-lived server certificate, and who checks what.
//!
//! The certificate names nobody; identity is proven above, by [`crate::hello`], over the certificate's public
//! key. So the verifier accepts any certificate, but it does check that the server holds its key: TLS 1.3's
//! handshake signature, with the provider's algorithms. TLS 1.2 is not spoken. ECDSA P-256, because many QUIC
//! stacks refuse ed25519 certificates. No session tickets, no early data.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cryptomind_protocol::frame::ALPN_RING;
use cryptomind_protocol::key::Hash;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, ServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::{CipherSuite, DigitallySignedStruct, Error, SignatureScheme, SupportedCipherSuite};

use crate::transport;

/// How long a certificate is valid; it is replaced after half of that.
const LIFETIME: Duration = Duration::from_secs(14 * 24 * 3600);
/// Clocks may differ by this much.
const BACKDATE: Duration = Duration::from_secs(24 * 3600);
/// Name in the certificate, and the one that callers ask for.
pub(crate) const SERVER_NAME: &str = "cryptomind.invalid";

/// A certificate with the server settings made from it.
pub(crate) struct Certificate {
    /// For `Incoming::accept_with`.
    pub(crate) config: Arc<ServerConfig>,
    /// BLAKE3 of its SubjectPublicKeyInfo.
    pub(crate) hash: Hash,
    made: SystemTime,
}

/// Making a certificate failed: no randomness, or a library refused its own output.
#[derive(Debug, thiserror::Error)]
#[error("the TLS certificate could not be made: {0}")]
pub(crate) struct CertificateError(String);

impl CertificateError {
    fn new(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl Certificate {
    /// A fresh certificate for a server that speaks `alpns`.
    pub(crate) fn make(alpns: &[&'static str]) -> Result<Self, CertificateError> {
        let made = SystemTime::now();
        let (der, key) = self_signed(made)?;
        let hash = public_key_hash(&der).ok_or_else(|| CertificateError::new("no public key"))?;
        let mut tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(CertificateError::new)?
            .with_no_client_auth()
            .with_single_cert(vec![der], key.into())
            .map_err(CertificateError::new)?;
        tls.alpn_protocols = alpns.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.send_tls13_tickets = 0;
        let tls = QuicServerConfig::try_from(tls).map_err(CertificateError::new)?;
        Ok(Self {
            config: Arc::new(server_config(tls, alpns)),
            hash,
            made,
        })
    }

    /// Whether it is time for the next one.
    pub(crate) fn is_old(&self) -> bool {
        // A clock that was set back makes a certificate old too: its dates no longer mean anything.
        self.made.elapsed().map_or(true, |age| age > LIFETIME / 2)
    }
}

fn server_config(tls: QuicServerConfig, alpns: &[&'static str]) -> ServerConfig {
    let alpn = alpns.first().copied().unwrap_or_default();
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(transport::before_auth(alpn, true))
        .migration(false)
        .max_incoming(256)
        .incoming_buffer_size(64 * 1024)
        .incoming_buffer_size_total(4 * 1024 * 1024);
    config
}

fn self_signed(
    now: SystemTime,
) -> Result<(CertificateDer<'static>, PrivatePkcs8KeyDer<'static>), CertificateError> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
        .map_err(CertificateError::new)?;
    let mut params = rcgen::CertificateParams::new(vec![SERVER_NAME.to_owned()])
        .map_err(CertificateError::new)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "cryptomind");
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(BACKDATE);
    params.not_before = epoch + since.saturating_sub(BACKDATE);
    params.not_after = epoch + since + LIFETIME;
    let certificate = params.self_signed(&key).map_err(CertificateError::new)?;
    Ok((certificate.der().clone(), key.serialize_der().into()))
}

/// BLAKE3 of a certificate's SubjectPublicKeyInfo; nothing where it is no X.509 certificate.
pub(crate) fn public_key_hash(certificate: &CertificateDer<'_>) -> Option<Hash> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    Some(Hash::of(&certificate.subject_public_key_info()))
}

/// The hash of the server's public key as this caller saw it in the handshake.
pub(crate) fn peer_key_hash(connection: &quinn::Connection) -> Option<Hash> {
    let chain = connection
        .peer_identity()?
        .downcast::<Vec<CertificateDer<'static>>>()
        .ok()?;
    public_key_hash(chain.first()?)
}

/// Settings of a caller that wants to speak `alpn`.
pub(crate) fn client_config(alpn: &'static str) -> Result<ClientConfig, CertificateError> {
    let provider = match alpn {
        ALPN_RING => ring_provider(),
        _ => provider(),
    };
    let mut tls = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(CertificateError::new)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(HoldsItsKey(provider)))
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    tls.resumption = Resumption::disabled();
    tls.enable_sni = false;
    let tls = QuicClientConfig::try_from(tls).map_err(CertificateError::new)?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(transport::before_auth(alpn, false));
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Gradients are sealed with AES-128, which is the cheapest where the processor knows AES: a server takes what its caller
/// likes best.
fn ring_provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    let is_aes_128 =
        |suite: &SupportedCipherSuite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256;
    if has_aes() {
        provider
            .cipher_suites
            .sort_by_key(|suite| !is_aes_128(suite));
    }
    Arc::new(provider)
}

#[cfg(target_arch = "x86_64")]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const fn has_aes() -> bool {
    false
}

/// Accepts any certificate of a server that proves to hold its key.
#[derive(Debug)]
struct HoldsItsKey(Arc<CryptoProvider>);

impl ServerCertVerifier for HoldsItsKey {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_fresh_each_time_and_short_lived() {
        let (a, b) = (
            Certificate::make(&["x/1"]).unwrap(),
            Certificate::make(&["x/1"]).unwrap(),
        );
        assert_ne!(a.hash, b.hash);
        assert!(!a.is_old());
        let stale = Certificate {
            made: SystemTime::now() - LIFETIME,
            ..a
        };
        assert!(stale.is_old());
    }

    #[test]
    fn what_is_no_certificate_has_no_key() {
        assert_eq!(public_key_hash(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
