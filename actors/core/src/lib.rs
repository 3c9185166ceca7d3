//! cryptomind-core
