//! Passes on what nginx was configured with as cfgs, and refuses headers that the module can't be built for. What isn't a release
//! is built for tests (`for_tests`): it can break rules, and checks more.
//!
//! nginx-sys reads the headers of `NGINX_SOURCE_DIR` and `NGINX_BUILD_DIR` and tells its dependents what it found. Its
//! bindings hold all that the module calls, stream and the OpenSSL that nginx links among it: nothing is bound here.

use std::process::exit;

/// Older ones lack `ngx_http_read_client_request_body`'s and the stream module's present form.
const OLDEST: (u32, &str) = (1_021_000, "1.21.0");

/// Versions from which structures of the headers changed, and the cfgs that say so.
const VERSIONS: &[(u32, &str)] = &[
    // Servers of an upstream can come and go while requests have them.
    (1_027_003, "nginx_1_27_3"),
    // Servers of stream can share an address: `listen`s are kept by port and address.
    (1_025_005, "nginx_1_25_5"),
];

/// What must have been configured, and the option that does it.
const NEEDED: &[(&str, &str)] = &[
    ("http", "without --without-http"),
    ("stream", "with --with-stream=dynamic"),
    ("stream_ssl", "with --with-stream_ssl_module"),
    ("ssl", "with --with-http_ssl_module"),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for (_, cfg) in VERSIONS {
        println!("cargo::rustc-check-cfg=cfg({cfg})");
    }
    println!("cargo::rustc-check-cfg=cfg(for_tests)");
    // Of every profile this says on which of the two it is built.
    if var("PROFILE", "release") != "release" {
        println!("cargo::rustc-cfg=for_tests");
    }
    println!("cargo::rustc-check-cfg=cfg(ngx_feature, values({}))", var("DEP_NGINX_FEATURES_CHECK", "any()"));
    if std::env::var_os("CARGO_FEATURE_NGINX").is_none() {
        return;
    }

    let version: u32 = var("DEP_NGINX_VERSION_NUMBER", "0").parse().unwrap_or(0);
    if version < OLDEST.0 {
        refuse(&format!("nginx {} or newer is needed", OLDEST.1));
    }
    for (_, cfg) in VERSIONS.iter().filter(|(since, _)| version >= *since) {
        println!("cargo::rustc-cfg={cfg}");
    }

    let features = var("DEP_NGINX_FEATURES", "");
    let features: Vec<&str> = features.split(',').map(str::trim).collect();
    for (feature, how) in NEEDED {
        if !features.contains(feature) {
            refuse(&format!("they lack {feature}; configure nginx {how}"));
        }
    }
    for feature in features {
        println!("cargo::rustc-cfg=ngx_feature=\"{feature}\"");
    }

    if var("DEP_NGINX_OS", "") != "linux" {
        refuse("they are of another system than Linux, on whose eventfd and /proc the module relies");
    }
    println!("cargo::rustc-env=ZONEMESH_NGINX_VERSION={}", var("DEP_NGINX_VERSION", "nginx"));
}

/// A variable that nginx-sys's build script has set for us, watched.
fn var(name: &str, default: &str) -> String {
    println!("cargo::rerun-if-env-changed={name}");
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Ends the build with a message that says which headers are meant and what is wrong with them.
fn refuse(why: &str) -> ! {
    let found = var("DEP_NGINX_VERSION", "an unknown nginx");
    let folder = var("DEP_NGINX_BUILD_DIR", "?");
    println!("cargo::error=the module can't be built with the headers of {found} in {folder}: {why}");
    exit(1)
}
