//! The laws of packuments, and documents as upstreams really write them.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn name(text: &str) -> PackageName {
    PackageName::new(text).unwrap()
}

fn at() -> BaseUrl {
    BaseUrl::new("https://here.example/npm/")
}

fn parse_as(package: &str, document: impl fmt::Display) -> Result<Packument> {
    Packument::parse(&name(package), &(), document.to_string().into())
}

fn parse(document: impl fmt::Display) -> Packument {
    parse_as("tool", document).unwrap()
}

fn rendered(packument: &Packument, form: Form) -> Value {
    serde_json::from_slice(&packument.render(&at(), form)).unwrap()
}

fn full(packument: &Packument) -> Value {
    rendered(packument, Form::Full)
}

fn numbers(packument: &Packument) -> Vec<&str> {
    packument.versions.iter().map(|version| version.number.as_str()).collect()
}

/// A document with these versions; each has a tarball where registries usually keep it.
fn document(versions: &[&str]) -> Value {
    let manifest = |number: &str| {
        let tarball = format!("https://up.example/tool/-/tool-{number}.tgz");
        json!({ "name": "tool", "version": number, "dist": { "tarball": tarball, "shasum": "00".repeat(20) } })
    };
    let versions: Map<String, Value> = versions.iter().map(|number| ((*number).to_owned(), manifest(number))).collect();
    json!({ "name": "tool", "dist-tags": { "latest": versions.keys().next_back() }, "versions": versions })
}

mod addresses {
    use super::*;

    #[test]
    fn tarballs_are_ours_whatever_the_upstream_writes() {
        for (package, ours) in [("tool", "tool/-/tool-1.0.0.tgz"), ("@acme/tool", "@acme/tool/-/tool-1.0.0.tgz")] {
            for theirs in [
                "https://up.example/tool/-/tool-1.0.0.tgz",
                "http://up.example:8081/repository/npm/@acme/tool/-/@acme/tool-1.0.0.tgz",
                "https://up.example/download/@acme/tool/1.0.0/0123456789abcdef0123456789abcdef01234567",
                "https://cdn.example/blobs/ab/cd?signature=x%2Fy&expires=1#part",
                "/tool/-/tool-1.0.0.tgz",
                "tool-1.0.0.tgz",
                "",
                "quote \" and \\ backslash \u{7f} é",
            ] {
                let document = json!({
                    "name": package,
                    "dist-tags": {},
                    "versions": { "1.0.0": { "before": 1, "dist": { "a": [1], "tarball": theirs, "z": null }, "after": theirs } },
                });
                for form in [Form::Full, Form::Abbreviated] {
                    let dist = rendered(&parse_as(package, &document).unwrap(), form)["versions"]["1.0.0"]["dist"].clone();
                    let expected = json!({ "a": [1], "tarball": format!("https://here.example/npm/{ours}"), "z": null });
                    assert_eq!(dist, expected, "{package} {theirs} {form:?}");
                }
                // Only the place that clients read is ours; the same text elsewhere is the publisher's.
                assert_eq!(full(&parse_as(package, &document).unwrap())["versions"]["1.0.0"]["after"], theirs);
            }
        }
    }

    #[test]
    fn what_stands_in_a_number_cannot_leave_its_place() {
        let document = json!({ "name": "tool", "versions": { "1 \"/../<x>": { "dist": { "tarball": "x" } } } });
        let versions = full(&parse(document))["versions"].clone();
        let tarball = versions["1 \"/../<x>"]["dist"]["tarball"].as_str().unwrap();
        assert_eq!(tarball, "https://here.example/npm/tool/-/tool-1%20%22%2F..%2F%3Cx%3E.tgz");
    }

    #[test]
    fn attestations_are_asked_of_us_too() {
        let attestations = json!({ "url": "https://up.example/-/npm/v1/attestations/x", "provenance": { "predicateType": "p" } });
        for (order, package, expected) in
            [(true, "tool", "tool@1.0.0"), (false, "tool", "tool@1.0.0"), (true, "@acme/tool", "@acme%2ftool@1.0.0")]
        {
            // Before or after the tarball: both places are written over.
            let dist = if order {
                json!({ "tarball": "t", "attestations": attestations })
            } else {
                json!({ "attestations": attestations, "tarball": "t" })
            };
            let document = json!({ "name": package, "versions": { "1.0.0": { "dist": dist } } });
            let dist = full(&parse_as(package, document).unwrap())["versions"]["1.0.0"]["dist"].clone();
            assert_eq!(dist["attestations"]["url"], format!("https://here.example/npm/-/npm/v1/attestations/{expected}"));
            assert_eq!(dist["attestations"]["provenance"]["predicateType"], "p");
            assert!(dist["tarball"].as_str().unwrap().ends_with("tool-1.0.0.tgz"));
        }
    }

    #[test]
    fn one_manifest_is_found_by_number_and_by_tag() {
        let packument = parse(document(&["1.0.0", "2.0.0"]));
        let found = |wanted: &str| packument.manifest(wanted, &at()).map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap());
        assert_eq!(found("1.0.0").unwrap()["dist"]["tarball"], "https://here.example/npm/tool/-/tool-1.0.0.tgz");
        assert_eq!(found("latest").unwrap()["version"], "2.0.0");
        assert!(found("3.0.0").is_none() && found("next").is_none() && found("").is_none());
    }
}

mod promises {
    use super::*;

    fn promise(tarball: &str, dist: &Value, file: &str) -> Option<Promise> {
        let mut dist = dist.clone();
        dist["tarball"] = json!(tarball);
        parse_as("@acme/tool", json!({ "name": "@acme/tool", "versions": { "1.0.0": { "dist": dist } } })).unwrap().promise(file, &())
    }

    #[test]
    fn a_file_is_found_by_our_name_and_by_the_upstreams() {
        for (tarball, files) in [
            ("https://up.example/@acme/tool/-/tool-1.0.0.tgz", &["tool-1.0.0.tgz"][..]),
            ("https://up.example/x/-/acme-tool-v1.tgz?a=/b", &["tool-1.0.0.tgz", "acme-tool-v1.tgz"]),
            ("https://up.example/download/%40acme%2Ftool/1.0.0/0a1b", &["tool-1.0.0.tgz", "0a1b"]),
        ] {
            for file in files {
                let found = promise(tarball, &json!({}), file).unwrap();
                assert_eq!((found.version.as_str(), found.url.as_str()), ("1.0.0", tarball), "{file}");
            }
            for file in ["tool-1.0.1.tgz", "tool-1.0.0.tgz.asc", "1.0.0", ""] {
                assert!(promise(tarball, &json!({}), file).is_none(), "{file}");
            }
        }
    }

    #[test]
    fn our_name_of_one_version_goes_before_the_upstreams_name_of_another() {
        let document = json!({ "name": "tool", "versions": {
            "1.0.0": { "dist": { "tarball": "https://up.example/tool-2.0.0.tgz" } },
            "2.0.0": { "dist": { "tarball": "https://up.example/other.tgz" } },
        } });
        let packument = parse(document);
        assert_eq!(packument.promise("tool-2.0.0.tgz", &()).unwrap().version, "2.0.0");
        assert_eq!(packument.promise("other.tgz", &()).unwrap().version, "2.0.0");
    }

    #[test]
    fn the_strongest_digest_that_can_be_read_is_promised() {
        let sha512 = Digest::new(Algorithm::Sha512, &[7; 64]).unwrap();
        let integrity = {
            use base64::Engine as _;
            format!("sha512-{}", base64::engine::general_purpose::STANDARD.encode([7; 64]))
        };
        let shasum = "0a".repeat(20);
        let sha1 = Digest::from_hex(Algorithm::Sha1, &shasum).unwrap();
        for (dist, expected) in [
            (json!({ "integrity": integrity, "shasum": shasum }), vec![sha512]),
            (json!({ "shasum": shasum }), vec![sha1]),
            (json!({ "integrity": "md9-x", "shasum": shasum }), vec![sha1]),
            (json!({ "shasum": "zz" }), vec![]),
            (json!({}), vec![]),
        ] {
            let found = promise("https://up.example/t.tgz", &dist, "tool-1.0.0.tgz").unwrap();
            assert_eq!(found.digests, expected, "{dist}");
        }
    }

    #[test]
    fn without_an_address_nothing_is_promised() {
        for dist in [json!({}), json!({ "tarball": 7 }), json!({ "tarball": null }), json!([]), json!("x"), Value::Null] {
            let packument = parse(json!({ "name": "tool", "versions": { "1.0.0": { "dist": dist } } }));
            assert!(packument.promise("tool-1.0.0.tgz", &()).is_none(), "{dist}");
        }
    }
}

mod forms {
    use super::*;

    #[test]
    fn the_abbreviated_form_has_what_an_installer_needs_and_nothing_else() {
        let mut manifest: Map<String, Value> = ABBREVIATED_FIELDS.iter().map(|field| ((*field).to_owned(), json!({ "x": [1] }))).collect();
        manifest.insert("scripts".to_owned(), json!({ "test": "t", "postinstall": "p" }));
        manifest.insert("_hasShrinkwrap".to_owned(), json!(true));
        for field in ["description", "readme", "maintainers", "_id", "_npmUser", "gitHead", "hasInstallScript", "exports", "main"] {
            manifest.insert(field.to_owned(), json!(false));
        }
        let document = json!({
            "name": "tool", "description": "d", "readme": "r", "dist-tags": { "latest": "1.0.0" },
            "versions": { "1.0.0": manifest }, "time": { "modified": "2026-01-01T00:00:00.000Z" }, "users": {},
        });
        let short = rendered(&parse(document), Form::Abbreviated);
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<HashSet<_>>();
        assert_eq!(keys(&short), ["name", "modified", "dist-tags", "versions"].map(str::to_owned).into());
        let mut expected: HashSet<String> = ABBREVIATED_FIELDS.iter().map(|field| (*field).to_owned()).collect();
        expected.extend(["hasInstallScript".to_owned(), "_hasShrinkwrap".to_owned()]);
        let version = &short["versions"]["1.0.0"];
        assert_eq!(keys(version), expected);
        assert_eq!(version["dist"], json!({ "x": [1] }));
        assert_eq!((&version["hasInstallScript"], &version["_hasShrinkwrap"]), (&json!(true), &json!(true)));
    }

    #[test]
    fn an_install_script_is_looked_for_and_not_believed() {
        for (manifest, expected) in [
            (json!({ "scripts": { "install": "x" } }), true),
            (json!({ "scripts": { "preinstall": "" } }), true),
            (json!({ "scripts": { "prepare": "x", "build": "x" } }), false),
            (json!({ "hasInstallScript": true }), false),
            (json!({ "scripts": "install" }), false),
            (json!({}), false),
        ] {
            let packument = parse(json!({ "name": "tool", "versions": { "1.0.0": manifest } }));
            let version = rendered(&packument, Form::Abbreviated)["versions"]["1.0.0"].clone();
            assert_eq!(version.get("hasInstallScript").is_some(), expected, "{manifest}");
        }
        for said in [json!(false), json!("true"), json!(null)] {
            let packument = parse(json!({ "name": "tool", "versions": { "1.0.0": { "_hasShrinkwrap": said } } }));
            assert!(rendered(&packument, Form::Abbreviated)["versions"]["1.0.0"].get("_hasShrinkwrap").is_none());
        }
    }

    #[test]
    fn the_last_change_is_what_the_document_says_or_its_newest_time() {
        let modified = |time: Value| rendered(&parse(json!({ "name": "tool", "versions": {}, "time": time })), Form::Abbreviated);
        assert_eq!(modified(json!({ "modified": "2020", "1.0.0": "2026" }))["modified"], "2020");
        assert_eq!(modified(json!({ "1.0.0": "2024", "2.0.0": "2026", "x": 9 }))["modified"], "2026");
        assert!(modified(json!({})).get("modified").is_none());
    }

    #[test]
    fn unknown_fields_keep_their_bytes() {
        let odd = r#"{"name":"tool", "_rev" : "3-x","big":123456789012345678901234567890.10e-5,"neg":-0.0,"esc":"\u00e9\/","versions":{"1.0.0":{"n":1E400,"dist":{"tarball":"t"},"dup":1,"dup":2}},"empty":{ },"time":{"1.0.0":"T"}}"#;
        let text = String::from_utf8(parse(odd).render(&at(), Form::Full).to_vec()).unwrap();
        for kept in [
            r#""_rev":"3-x""#,
            r#""big":123456789012345678901234567890.10e-5"#,
            r#""neg":-0.0"#,
            r#""esc":"\u00e9\/""#,
            r#""n":1E400"#,
            r#""dup":1,"dup":2"#,
            r#""empty":{ }"#,
            r#""time":{"1.0.0":"T"}"#,
        ] {
            assert!(text.contains(kept), "{kept} in {text}");
        }
    }
}

mod refusals {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn what_is_no_packument_of_the_package_is_refused() {
        for wrong in [
            "",
            "null",
            "[]",
            "7",
            "{",
            "{}",
            r#"{"versions":{}}"#,
            r#"{"name":7}"#,
            r#"{"name":"Tool"}"#,
            r#"{"name":"@acme/tool"}"#,
            r#"{"name":"tool","name":"other"}"#,
            r#"{"versions":{},"name":"tool","versions":7}"#,
            r#"{"name":"tool","versions":[]}"#,
            r#"{"name":"tool","versions":null}"#,
            r#"{"name":"tool","dist-tags":{"latest":1}}"#,
            r#"{"name":"tool","dist-tags":"x"}"#,
            r#"{"name":"tool","time":[]}"#,
            r#"{"name":"tool"} {"#,
            "{\"name\":\"tool\",\"x\":\"\u{1}\"}",
            r#"{"error":"Not found"}"#,
        ] {
            assert_eq!(parse_as("tool", wrong).unwrap_err().kind(), Kind::Invalid, "{wrong}");
        }
        assert!(Packument::parse(&name("tool"), &(), Bytes::from_static(b"{\"name\":\"tool\",\"x\":\"\xff\"}")).is_err());
    }

    #[test]
    fn a_package_without_versions_is_empty() {
        for document in [r#"{"name":"tool"}"#, r#"{"name":"tool","versions":{}}"#] {
            let packument = parse(document);
            assert!(packument.is_empty() && packument.promise("tool-1.0.0.tgz", &()).is_none());
            assert_eq!(full(&packument), json!({ "name": "tool", "dist-tags": {}, "versions": {} }));
        }
    }

    #[test]
    fn odd_manifests_are_served_as_they_stand() {
        for odd in [json!({ "dist": 7 }), json!({ "dist": [] }), json!({ "dist": { "tarball": {} } }), json!([1]), json!("x"), json!(null)]
        {
            let packument = parse(json!({ "name": "tool", "versions": { "1.0.0": odd.clone() } }));
            assert_eq!(full(&packument)["versions"]["1.0.0"], odd);
            assert!(rendered(&packument, Form::Abbreviated)["versions"]["1.0.0"].is_object());
        }
        // One wrong field of `dist` does not take its address from it.
        let dist = json!({ "tarball": "https://up.example/t.tgz", "shasum": 7 });
        let packument = parse(json!({ "name": "tool", "versions": { "1.0.0": { "dist": dist } } }));
        assert_eq!(full(&packument)["versions"]["1.0.0"]["dist"]["tarball"], "https://here.example/npm/tool/-/tool-1.0.0.tgz");
        assert!(packument.promise("tool-1.0.0.tgz", &()).is_some());
    }

    /// With a key given twice, readers disagree on which counts: no reading may see an address that is not ours.
    #[test]
    fn no_repeated_key_lets_an_upstream_address_through() {
        let tarball = r#""tarball":"https://up.example/t.tgz""#;
        for manifest in [
            format!(r#"{{"dist":{{{tarball},{tarball}}}}}"#),
            format!(r#"{{"dist":{{{tarball}}},"dist":{{{tarball}}}}}"#),
            format!(r#"{{"dist":{{{tarball}}},"d\u0069st":{{{tarball}}}}}"#),
            format!(r#"{{"dist":{{{tarball}}},"dist":7}}"#),
            format!(r#"{{"dist":{{"tarball":7,{tarball}}}}}"#),
            r#"{"dist":{"attestations":{"url":"https://up.example/"},"attestations":{"url":"https://up.example/"}}}"#.to_owned(),
        ] {
            let packument = parse(format!(r#"{{"name":"tool","versions":{{"1.0.0":{manifest}}}}}"#));
            for form in [Form::Full, Form::Abbreviated] {
                let text = String::from_utf8(packument.render(&at(), form).to_vec()).unwrap();
                assert!(!text.contains("up.example"), "{text}");
            }
        }
    }

    #[test]
    fn a_repeated_version_is_one_version() {
        let text = r#"{"name":"tool","versions":{"1.0.0":{"a":1},"1.0.0":{"a":2}}}"#;
        let packument = parse(text);
        assert_eq!(numbers(&packument).len(), 1);
        // As JSON.parse and npm read it: the last counts.
        assert_eq!(full(&packument)["versions"]["1.0.0"]["a"], 2);
        assert_eq!(packument.manifest("1.0.0", &at()).unwrap(), r#"{"a":2}"#);
    }

    #[test]
    fn deep_nesting_is_refused_or_served_and_never_overflows() {
        for depth in [100, 127, 128, 1000, 100_000] {
            let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            for document in [
                format!(r#"{{"name":"tool","x":{deep}}}"#),
                format!(r#"{{"name":"tool","versions":{{"1.0.0":{{"x":{deep},"dist":{{"tarball":"t","y":{deep}}}}}}}}}"#),
            ] {
                if let Ok(packument) = parse_as("tool", &document) {
                    packument.render(&at(), Form::Full);
                    packument.render(&at(), Form::Abbreviated);
                    packument.promise("tool-1.0.0.tgz", &());
                }
            }
        }
        assert!(parse_as("tool", deep_object(100)).is_ok());
    }

    fn deep_object(depth: usize) -> String {
        format!(r#"{{"name":"tool","x":{}1{}}}"#, r#"{"a":"#.repeat(depth), "}".repeat(depth))
    }
}

mod filters {
    use super::*;

    fn kept(document: &Value, rule: &dyn Fn(&Facts<'_>) -> bool) -> Packument {
        let mut packument = parse(document);
        packument.keep(rule);
        packument
    }

    #[test]
    fn what_is_dropped_leaves_no_trace() {
        let mut document = document(&["1.0.0", "1.1.0", "2.0.0-rc.1", "2.0.0"]);
        document["dist-tags"] = json!({ "latest": "2.0.0", "next": "2.0.0-rc.1", "old": "1.0.0" });
        document["time"] = json!({ "created": "a", "modified": "b", "1.0.0": "c", "2.0.0": "d", "1.9.9": "unpublished" });
        let packument = kept(&document, &|facts| facts.version != "2.0.0");
        assert_eq!(numbers(&packument), ["1.0.0", "1.1.0", "2.0.0-rc.1"]);
        let shown = full(&packument);
        assert_eq!(shown["dist-tags"], json!({ "latest": "1.1.0", "next": "2.0.0-rc.1", "old": "1.0.0" }), "a release before a prerelease");
        assert_eq!(shown["time"], json!({ "created": "a", "modified": "b", "1.0.0": "c" }));
        assert!(packument.promise("tool-2.0.0.tgz", &()).is_none() && packument.manifest("2.0.0", &at()).is_none());
    }

    #[test]
    fn without_versions_there_are_no_tags() {
        let packument = kept(&document(&["1.0.0", "2.0.0"]), &|_| false);
        assert!(packument.is_empty());
        assert_eq!(full(&packument)["dist-tags"], json!({}));
    }

    #[test]
    fn a_latest_that_stands_does_not_move() {
        let mut document = document(&["1.0.0", "2.0.0", "3.0.0"]);
        document["dist-tags"]["latest"] = json!("1.0.0");
        assert_eq!(full(&kept(&document, &|facts| facts.version != "3.0.0"))["dist-tags"]["latest"], "1.0.0");
        document["dist-tags"] = json!({ "next": "3.0.0" });
        assert_eq!(full(&kept(&document, &|facts| facts.version != "3.0.0"))["dist-tags"], json!({}), "no latest is made up");
    }

    #[test]
    fn a_rule_sees_the_time_of_publication() {
        let mut document = document(&["1.0.0", "2.0.0", "3.0.0"]);
        document["time"] = json!({ "1.0.0": "2020-01-01T00:00:00.000Z", "2.0.0": 7 });
        let seen = std::cell::RefCell::new(Vec::new());
        kept(&document, &|facts| {
            seen.borrow_mut().push((facts.version.to_owned(), facts.published.map(str::to_owned)));
            true
        });
        let expected = [("1.0.0", Some("2020-01-01T00:00:00.000Z")), ("2.0.0", None), ("3.0.0", None)];
        assert_eq!(seen.into_inner(), expected.map(|(version, time)| (version.to_owned(), time.map(str::to_owned))));
    }

    #[test]
    fn hosted_versions_lie_over_the_upstreams() {
        let ours = json!({ "name": "tool", "dist-tags": { "latest": "1.0.0" }, "versions": { "1.0.0": { "from": "us" } }, "time": { "1.0.0": "us" }, "readme": "us" });
        let theirs = json!({
            "name": "tool", "dist-tags": { "latest": "2.0.0", "next": "2.0.0" },
            "versions": { "2.0.0": { "from": "them" }, "1.0.0": { "from": "them" } },
            "time": { "1.0.0": "them", "2.0.0": "them" }, "readme": "them", "extra": 1,
        });
        let merged = full(&parse(ours).over(parse(theirs)));
        assert_eq!(merged["versions"], json!({ "1.0.0": { "from": "us" }, "2.0.0": { "from": "them" } }));
        assert_eq!(merged["dist-tags"], json!({ "latest": "1.0.0", "next": "2.0.0" }));
        assert_eq!(merged["time"], json!({ "1.0.0": "us", "2.0.0": "them" }));
        assert_eq!((&merged["readme"], &merged["extra"]), (&json!("us"), &json!(1)));
    }
}

/// Any JSON, a few levels deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Read back exactly; the tests compare values, which the documents under test never make of numbers.
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(".{0,6}", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_dist() -> impl Strategy<Value = Value> {
    let address =
        prop_oneof![Just("https://up.example/tool/-/tool-1.0.0.tgz".to_owned()), Just("/download/tool/1.0.0/0a".to_owned()), ".{0,20}"];
    (proptest::option::of(address.clone()), proptest::option::of(address), any_json()).prop_map(|(tarball, url, more)| {
        let mut dist = Map::new();
        dist.insert("more".to_owned(), more);
        dist.extend(tarball.map(|tarball| ("tarball".to_owned(), json!(tarball))));
        dist.extend(url.map(|url| ("attestations".to_owned(), json!({ "url": url }))));
        Value::Object(dist)
    })
}

fn any_manifest() -> impl Strategy<Value = Value> {
    let object = (any_dist(), any_json(), any_json(), any::<bool>()).prop_map(|(dist, dependencies, more, scripts)| {
        let mut manifest = json!({ "dependencies": dependencies, "dist": dist, "more": more });
        if scripts {
            manifest["scripts"] = json!({ "install": "x" });
        }
        manifest
    });
    prop_oneof![8 => object, 1 => any_json()]
}

/// A packument of `tool`.
fn any_document() -> impl Strategy<Value = Value> {
    let number = "[0-3]\\.[0-3]\\.[0-3](-rc\\.[0-3])?";
    (
        proptest::collection::btree_map(number, any_manifest(), 0..6),
        proptest::collection::btree_map("latest|next|[a-z]{1,5}", number, 0..4),
        proptest::collection::btree_map("created|modified|[0-3]\\.[0-3]\\.[0-3]", any_json(), 0..4),
        proptest::collection::btree_map("x.{0,5}", any_json(), 0..4),
    )
        .prop_map(|(versions, tags, time, rest)| {
            let mut document = json!({ "name": "tool", "dist-tags": tags, "versions": versions, "time": time });
            for (key, value) in rest {
                document[key] = value;
            }
            document
        })
}

/// A document with a part cut out, doubled or overwritten.
fn any_damage() -> impl Strategy<Value = Vec<u8>> {
    (
        any_document(),
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        proptest::collection::vec(any::<u8>(), 0..6),
        any::<bool>(),
    )
        .prop_map(|(document, from, to, bytes, double)| {
            let text = document.to_string().into_bytes();
            let (from, to) = (from.index(text.len()), to.index(text.len()));
            let (from, to) = (from.min(to), from.max(to));
            let middle = if double { [&text[from..to], &text[from..to]].concat() } else { bytes };
            [&text[..from], &middle, &text[to..]].concat()
        })
}

/// Everything that can be done with a document, done.
fn exercise(bytes: Vec<u8>) {
    let Ok(mut packument) = Packument::parse(&name("tool"), &(), bytes.into()) else { return };
    for form in [Form::Full, Form::Abbreviated] {
        let out = packument.render(&at(), form);
        assert!(serde_json::from_slice::<&RawValue>(&out).is_ok(), "{out:?}");
    }
    packument.promise("tool-1.0.0.tgz", &());
    drop(packument.manifest("latest", &at()));
    packument.keep(&|facts| facts.version.len() % 2 == 0);
    let again = packument.clone().over(packument);
    again.render(&at(), Form::Abbreviated);
}

proptest! {
    #[test]
    fn what_is_rendered_reads_back_the_same(document in any_document()) {
        let first = parse(&document);
        let bytes = first.render(&at(), Form::Full);
        let second = Packument::parse(&name("tool"), &(), bytes.clone()).unwrap();
        prop_assert_eq!(&second.tags, &first.tags);
        prop_assert_eq!(&second.time, &first.time);
        prop_assert_eq!(&second.rest, &first.rest);
        prop_assert_eq!(numbers(&second), numbers(&first));
        prop_assert_eq!(second.render(&at(), Form::Full), bytes);
        prop_assert_eq!(second.render(&at(), Form::Abbreviated), first.render(&at(), Form::Abbreviated));
    }

    #[test]
    fn nothing_but_addresses_changes(document in any_document()) {
        let forget = |mut document: Value| {
            for (_, version) in document["versions"].as_object_mut().unwrap() {
                let Some(dist) = version.get_mut("dist").and_then(Value::as_object_mut) else { continue };
                if dist.get("tarball").is_some_and(Value::is_string) {
                    dist["tarball"] = json!("gone");
                }
                if let Some(url) = dist.get_mut("attestations").and_then(|found| found.get_mut("url"))
                    && url.is_string()
                {
                    *url = json!("gone");
                }
            }
            document
        };
        let shown = full(&parse(&document));
        let expected = if document["time"].as_object().unwrap().is_empty() {
            let mut document = document;
            document.as_object_mut().unwrap().remove("time");
            document
        } else {
            document
        };
        prop_assert_eq!(forget(shown), forget(expected));
    }

    #[test]
    fn over_itself_a_document_is_itself(document in any_document()) {
        let one = parse(&document);
        for form in [Form::Full, Form::Abbreviated] {
            prop_assert_eq!(one.clone().over(one.clone()).render(&at(), form), one.render(&at(), form));
        }
    }

    #[test]
    fn over_an_empty_one_a_document_is_itself(document in any_document()) {
        let (one, empty) = (parse(&document), parse(r#"{"name":"tool"}"#));
        prop_assert_eq!(full(&one.clone().over(empty.clone())), full(&one));
        prop_assert_eq!(full(&empty.over(one.clone())), full(&one));
    }

    #[test]
    fn laying_over_is_associative(a in any_document(), b in any_document(), c in any_document()) {
        let (a, b, c) = (parse(a), parse(b), parse(c));
        let left = a.clone().over(b.clone()).over(c.clone());
        prop_assert_eq!(left.render(&at(), Form::Full), a.over(b.over(c)).render(&at(), Form::Full));
    }

    #[test]
    fn keeping_all_changes_nothing(document in any_document()) {
        let before = parse(&document);
        let mut after = before.clone();
        after.keep(&|_| true);
        prop_assert_eq!(after.render(&at(), Form::Full), before.render(&at(), Form::Full));
    }

    #[test]
    fn keeping_twice_is_keeping_once(document in any_document(), odd in any::<bool>()) {
        let rule = |facts: &Facts<'_>| (facts.version.len() % 2 == 1) == odd;
        let mut once = parse(&document);
        once.keep(&rule);
        let mut twice = once.clone();
        twice.keep(&rule);
        prop_assert_eq!(twice.render(&at(), Form::Full), once.render(&at(), Form::Full));
        let left: HashSet<&str> = numbers(&once).into_iter().collect();
        let dropped = numbers(&parse(&document)).len() != left.len();
        prop_assert!(!dropped || once.tags().iter().all(|(_, number)| left.contains(number.as_str())));
    }

    #[test]
    fn an_abbreviated_document_abbreviates_to_itself_but_for_scripts(document in any_document()) {
        let short = parse(&document).render(&at(), Form::Abbreviated);
        let again = Packument::parse(&name("tool"), &(), short.clone()).unwrap();
        let scripts = |mut value: Value| {
            for (_, version) in value["versions"].as_object_mut().unwrap() {
                version.as_object_mut().unwrap().remove("hasInstallScript");
            }
            value.as_object_mut().unwrap().remove("modified");
            value
        };
        prop_assert_eq!(scripts(rendered(&again, Form::Abbreviated)), scripts(serde_json::from_slice(&short).unwrap()));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        exercise(bytes);
    }

    #[test]
    fn damaged_documents_never_panic(bytes in any_damage()) {
        exercise(bytes);
    }
}
