//! cryptomind-net
