//! Unpacks compressed sections.

/// Unpacks a section of a known length; `None` when it is damaged or packed in an unknown way.
pub(crate) fn unpack(
    format: object::CompressionFormat,
    data: &[u8],
    bytes: usize,
) -> Option<Vec<u8>> {
    match format {
        object::CompressionFormat::Zlib => inflate(data, bytes),
        object::CompressionFormat::Zstandard => {
            let unpacked = zstd::bulk::decompress(data, bytes).ok()?;
            (unpacked.len() == bytes).then_some(unpacked)
        }
        _ => None,
    }
}

fn inflate(data: &[u8], bytes: usize) -> Option<Vec<u8>> {
    let mut unpacked = vec![0; bytes];
    let mut inflate = flate2::Decompress::new(true);
    inflate
        .decompress(data, &mut unpacked, flate2::FlushDecompress::Finish)
        .ok()?;
    (inflate.total_out() == bytes as u64).then_some(unpacked)
}
