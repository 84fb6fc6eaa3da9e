//! The HTTP client: plain where the URL is plain, TLS made by the first request that needs it.
//!
//! The SDK's own client makes its TLS configuration when a service client is built, and once more at the first
//! request, and parses all root certificates of the system each time, though the endpoint may be plain HTTP.
//!
//! The roots stay those of the system: it is patched, and it is what a company's proxy is added to. Parsing its 140
//! certificates takes 6 to 16 ms here; a function that wants them back sets `SSL_CERT_FILE` to a file with the five roots
//! of Amazon Trust Services, which takes 0.3 ms. Rustls on ring: no C++ or cmake in the build, and a smaller
//! function than with aws-lc.

use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

/// A client that keeps its connections, for any scheme. Cheap: neither connects nor reads certificates.
pub(crate) fn client() -> SharedHttpClient {
    let tls = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    SharedHttpClient::new(ByScheme { plain: Builder::new().build_http(), tls })
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
