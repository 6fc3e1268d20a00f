//! Images that a request carries in itself, as `data:` URLs. Nothing is fetched: a URL that a
//! client names would be opened from inside the operator's network. Sizes are checked from the
//! header, before pixels are allocated.

use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::error::Failure;

/// Images in one request.
pub(crate) const IMAGES_MAX: usize = 8;
/// Pixels on one side.
const SIDE_MAX: u32 = 4096;
/// Bytes of all decoded images of one request: two of the largest in RGBA.
const DECODED_MAX: u64 = 2 * 4 * (SIDE_MAX as u64) * (SIDE_MAX as u64);

/// The bytes of a `data:image/...;base64,` URL.
///
/// # Errors
/// Another kind of URL, another kind of file, or no base64; names the field `url`.
pub(crate) fn bytes(url: &str) -> Result<Vec<u8>, Failure> {
    let scheme = url.split(':').next().unwrap_or_default().to_ascii_lowercase();
    if scheme == "http" || scheme == "https" {
        return Err(Failure::unsupported("url", "images are not fetched; send a data: URL"));
    }
    let rest = url.strip_prefix("data:");
    let Some((kind, data)) = rest.and_then(|rest| rest.split_once(";base64,")) else {
        return Err(Failure::invalid("url", "expected 'data:image/...;base64,...'"));
    };
    if !["image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif"].contains(&kind) {
        return Err(Failure::unsupported("url", "images are PNG, JPEG, WebP or GIF"));
    }
    STANDARD.decode(data).map_err(|_| Failure::invalid("url", "the data is no base64"))
}

/// The decoded images of a request, in order. Slow: not for a thread that answers others.
///
/// # Errors
/// One is broken or too large; names it by its number.
pub(crate) fn decode(files: &[Vec<u8>]) -> Result<Vec<DynamicImage>, Failure> {
    let mut left = DECODED_MAX;
    let one = |(number, file): (usize, &Vec<u8>)| {
        image(file, &mut left).map_err(|why| Failure::request(format!("Image {number}: {why}.")))
    };
    (1..).zip(files).map(one).collect()
}

fn image(file: &[u8], left: &mut u64) -> Result<DynamicImage, String> {
    use ImageFormat::{Gif, Jpeg, Png, WebP};
    let mut reader = ImageReader::new(Cursor::new(file))
        .with_guessed_format()
        .map_err(|error| error.to_string())?;
    // The library knows more formats than are wanted from strangers.
    if !matches!(reader.format(), Some(Png | Jpeg | WebP | Gif)) {
        return Err("the bytes are no PNG, JPEG, WebP or GIF".to_owned());
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_MAX);
    limits.max_image_height = Some(SIDE_MAX);
    limits.max_alloc = Some(DECODED_MAX);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|error| error.to_string())?;
    *left = left
        .checked_sub(decoder.total_bytes())
        .ok_or_else(|| format!("the request's images take more than {DECODED_MAX} bytes"))?;
    DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expect: Result<(u32, u32), &str>) {
        let got = bytes(url).and_then(|file| decode(&[file]));
        match (got, expect) {
            (Ok(images), Ok(size)) => assert_eq!((images[0].width(), images[0].height()), size),
            (Err(failure), Err(part)) => {
                let body = failure.body().to_string();
                assert!(body.contains(part), "{url}: {body}");
            }
            (got, _) => panic!("{url}: {got:?}"),
        }
    }

    fn png(width: u32, height: u32) -> String {
        let mut file = Cursor::new(Vec::new());
        DynamicImage::new_luma8(width, height).write_to(&mut file, ImageFormat::Png).unwrap();
        format!("data:image/png;base64,{}", STANDARD.encode(file.into_inner()))
    }

    #[test]
    fn data_urls_only_and_bounded() {
        check(&png(3, 2), Ok((3, 2)));
        check("http://example.com/a.png", Err("images are not fetched"));
        check("HTTPS://example.com/a.png", Err("images are not fetched"));
        check("file:///etc/passwd", Err("expected 'data:image"));
        check("data:image/png,AAAA", Err("expected 'data:image"));
        check("data:image/svg+xml;base64,AAAA", Err("PNG, JPEG, WebP or GIF"));
        check("data:image/png;base64,???", Err("no base64"));
        check("data:image/png;base64,AAAA", Err("Image 1: the bytes are no PNG"));
        check(&png(SIDE_MAX + 1, 1), Err("Image 1"));
        // Whole groups of base64, half a file.
        check(&png(9, 9)[..22 + 40], Err("Image 1"));
    }

    #[test]
    fn all_images_share_one_limit() {
        let file = bytes(&png(SIDE_MAX, SIDE_MAX / 4)).unwrap();
        let mut left = 3 * u64::from(SIDE_MAX) * u64::from(SIDE_MAX) / 8;
        assert!(image(&file, &mut left).is_ok());
        assert!(image(&file, &mut left).unwrap_err().contains("take more than"));
    }
}
