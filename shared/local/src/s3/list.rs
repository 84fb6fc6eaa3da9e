//! Listing, version 2: prefix, delimiter and pages over sorted keys. Pure, so that it can be tested without a server.

use std::collections::BTreeMap;
use std::ops::Bound;

/// What is asked for.
#[derive(Debug, Default)]
pub(crate) struct Query<'a> {
    pub(crate) prefix: &'a str,
    /// Empty is none.
    pub(crate) delimiter: &'a str,
    /// Only what sorts after this is listed.
    pub(crate) after: &'a str,
    /// Most keys and common prefixes together.
    pub(crate) limit: usize,
}

/// One page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) keys: Vec<String>,
    pub(crate) common_prefixes: Vec<String>,
    /// Where the next page begins, if there is one: the last key or common prefix of this page.
    pub(crate) next_after: Option<String>,
}

/// Lists one page of the keys.
pub(crate) fn page<T>(objects: &BTreeMap<String, T>, query: &Query<'_>) -> Page {
    let mut page = Page { keys: Vec::new(), common_prefixes: Vec::new(), next_after: None };
    let mut last: Option<String> = None;
    let from = query.prefix.max(query.after);
    for key in objects.range::<str, _>((Bound::Included(from), Bound::Unbounded)).map(|(key, _)| key) {
        if !key.starts_with(query.prefix) {
            break;
        }
        let group = common_prefix(key, query);
        let entry = group.unwrap_or(key);
        // A page that ended with a common prefix has listed everything below it.
        if key.as_str() <= query.after || entry == query.after || last.as_deref() == Some(entry) {
            continue;
        }
        if page.keys.len() + page.common_prefixes.len() == query.limit {
            page.next_after = last;
            return page;
        }
        let list = if group.is_some() { &mut page.common_prefixes } else { &mut page.keys };
        list.push(entry.to_owned());
        last = Some(entry.to_owned());
    }
    page
}

/// The part of a key up to and with the first delimiter after the prefix.
fn common_prefix<'k>(key: &'k str, query: &Query<'_>) -> Option<&'k str> {
    if query.delimiter.is_empty() {
        return None;
    }
    let at = key[query.prefix.len()..].find(query.delimiter)?;
    Some(&key[..query.prefix.len() + at + query.delimiter.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects() -> BTreeMap<String, ()> {
        ["a", "b/1", "b/2", "b/c/3", "d/4", "e"].map(|key| (key.to_owned(), ())).into()
    }

    /// Every entry of every page, prefixes with a star.
    fn all(prefix: &str, delimiter: &str, limit: usize) -> Vec<Vec<String>> {
        let (objects, mut after, mut pages) = (objects(), String::new(), Vec::new());
        loop {
            let page = page(&objects, &Query { prefix, delimiter, after: &after, limit });
            let stars = page.common_prefixes.iter().map(|prefix| format!("{prefix}*"));
            let mut entries: Vec<String> = page.keys.iter().cloned().chain(stars).collect();
            entries.sort();
            pages.push(entries);
            match page.next_after {
                Some(next) => after = next,
                None => return pages,
            }
        }
    }

    #[test]
    fn pages_hold_each_entry_once() {
        let strings = |pages: &[&[&str]]| -> Vec<Vec<String>> {
            pages.iter().map(|page| page.iter().map(|entry| (*entry).to_owned()).collect()).collect()
        };
        assert_eq!(all("", "", 1000), strings(&[&["a", "b/1", "b/2", "b/c/3", "d/4", "e"]]));
        assert_eq!(all("", "/", 1000), strings(&[&["a", "b/*", "d/*", "e"]]));
        assert_eq!(all("b/", "/", 1000), strings(&[&["b/1", "b/2", "b/c/*"]]));
        assert_eq!(all("", "/", 2), strings(&[&["a", "b/*"], &["d/*", "e"]]));
        assert_eq!(all("", "/", 3), strings(&[&["a", "b/*", "d/*"], &["e"]]));
        assert_eq!(all("b", "", 2), strings(&[&["b/1", "b/2"], &["b/c/3"]]));
        assert_eq!(all("zzz", "/", 2), strings(&[&[]]));
    }

    #[test]
    fn a_start_inside_a_common_prefix_still_lists_it() {
        let page = page(&objects(), &Query { delimiter: "/", after: "b/1", limit: 9, ..Query::default() });
        assert_eq!(page.common_prefixes, ["b/", "d/"]);
    }

    #[test]
    fn nothing_may_be_asked_for() {
        let page = page(&objects(), &Query { limit: 0, ..Query::default() });
        assert_eq!(page, Page { keys: vec![], common_prefixes: vec![], next_after: None });
    }
}
