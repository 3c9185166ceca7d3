//! cryptomind-actors
