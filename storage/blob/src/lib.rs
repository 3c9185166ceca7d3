//! cryptomind-blob
