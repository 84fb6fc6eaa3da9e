//! The HTTP client: plain where the URL is plain, TLS made by the first request that needs it.
//!
//! The SDK's own client makes its TLS configuration when a service client is built, and once more at the first
//! request, and parses all root certificates of the system each time, though the endpoint may be plain HTTP.
//!
//! A developer's tool believes the system's roots: they are patched, and they are what a company's proxy is added to.
//! Parsing them takes 6 to 16 ms, so a function that talks to Amazon's own S3 believes Amazon's five, which are
//! compiled in and take 0.3 ms (docs/adr/0010-process-start.md). Rustls on ring: no C++ or cmake in the build,
//! and a smaller function than with aws-lc.

use crate::options::Roots;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

const AMAZON_ROOTS: &[u8] = include_bytes!("amazon-roots.pem");

/// A client that keeps its connections, for any scheme. Cheap: neither connects nor reads certificates.
pub(crate) fn client(roots: Roots) -> SharedHttpClient {
    let tls = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(context(roots));
    let tls = tls.build_https();
    SharedHttpClient::new(ByScheme { plain: Builder::new().build_http(), tls })
}

/// Parses nothing yet.
fn context(roots: Roots) -> TlsContext {
    let amazon = TrustStore::empty().with_pem_certificate(AMAZON_ROOTS);
    let context = match roots {
        Roots::System => Ok(TlsContext::default()),
        Roots::Amazon => TlsContext::builder().with_trust_store(amazon).build(),
    };
    // Building fails for other crates' TLS only; the system's roots are right in any case.
    context.unwrap_or_default()
}

/// Does not override `validate_base_client_config`, by which the inner clients would make their connectors early.
#[derive(Clone, Debug)]
struct ByScheme {
    plain: SharedHttpClient,
    tls: SharedHttpClient,
}

impl HttpClient for ByScheme {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let (settings, components) = (settings.clone(), components.clone());
        SharedHttpConnector::new(Connector { clients: self.clone(), settings, components })
    }
}

#[derive(Debug)]
struct Connector {
    clients: ByScheme,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let plain = request.uri().starts_with("http://");
        let client = if plain { &self.clients.plain } else { &self.clients.tls };
        // The inner client keeps its connector, and its connections, from the first call on.
        client.http_connector(&self.settings, &self.components).call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{S3Credentials, S3Options, S3Store};
    use glowplug_store::{ObjectStore, Retry};
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// A server without a certificate is greeted and not believed; a root that does not parse would panic.
    #[tokio::test]
    async fn each_set_of_roots_makes_a_client_that_greets() {
        for roots in [Roots::System, Roots::Amazon] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("https://{}", listener.local_addr().unwrap());
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut hello = [0; 3];
                stream.read_exact(&mut hello).unwrap();
                stream.write_all(b"no TLS here").unwrap();
                hello
            });
            let local = S3Options::local(url, "bucket", S3Credentials::fixed("key", "secret")).unwrap();
            let once = Retry { tries: 1, ..Retry::default() };
            let store = S3Store::connect(S3Options { roots, retry: once, ..local }).unwrap();
            assert!(store.get("x", None, None).await.is_err());
            assert_eq!(server.join().unwrap()[..2], [22, 3], "{roots:?}: a handshake");
        }
        assert_eq!(String::from_utf8_lossy(AMAZON_ROOTS).matches("BEGIN CERTIFICATE").count(), 5);
    }
}
