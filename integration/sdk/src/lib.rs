//! cryptomind-sdk
