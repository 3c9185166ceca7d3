//! cryptomind-storage
