//! cryptomind-config
