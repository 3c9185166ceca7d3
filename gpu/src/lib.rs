//! cryptomind-gpu
