//! Small pictures of screenshots: made when they are asked for, so that a worker does nothing for a list that nobody opens,
//! and kept by the browser, because a screenshot never changes.
//!
//! The file may be anything, so it is read within bounds: no more of it than the part that is shown, no picture larger than
//! a screen can be, and only two at a time.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use tokio::sync::Semaphore;

use super::problem::Problem;

/// Largest picture that is read, in pixels a side.
const MOST: usize = 8_192;
/// Bytes that the decoder may take.
const MEMORY: usize = 64 << 20;
/// Of 100.
const QUALITY: u8 = 72;

static MAKING: Semaphore = Semaphore::const_new(2);

/// How large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// For a row of a list.
    Small,
    /// For the head of a run.
    Large,
}

impl Size {
    /// As the parameter `size` has it.
    pub fn read(text: &str) -> Result<Size, &'static str> {
        match text {
            "small" => Ok(Size::Small),
            "large" => Ok(Size::Large),
            _ => Err("must be small or large; leave it out for the picture as it is"),
        }
    }

    /// Address of a run's screenshot in this size.
    pub fn of(self, run: i64, name: &str) -> String {
        let size = if self == Size::Small { "small" } else { "large" };
        format!("/runs/{run}/artifacts/{name}?size={size}")
    }

    /// Width and height: both have the proportions of a screen, from the top.
    fn pixels(self) -> (usize, usize) {
        match self {
            Size::Small => (192, 120),
            Size::Large => (640, 400),
        }
    }
}

/// The picture as a JPEG of at most this size.
pub async fn serve(file: File, size: Size) -> Result<Response, Problem> {
    let _one = MAKING.acquire().await.map_err(|_| Problem::internal())?;
    let made = tokio::task::spawn_blocking(move || shrink(file, size)).await.map_err(|_| Problem::internal())?;
    let jpeg = made.map_err(|error| {
        tracing::debug!(%error, "no small picture could be made");
        Problem::not_found("picture: the file can't be read as one")
    })?;
    let mut response = jpeg.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("image/jpeg"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=86400, immutable"));
    Ok(response)
}

/// The upper part of a PNG, with the proportions of a screen, made smaller.
fn shrink(file: impl Read + Seek, size: Size) -> io::Result<Vec<u8>> {
    let mut decoder = png::Decoder::new_with_limits(BufReader::new(file), png::Limits { bytes: MEMORY });
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    if width == 0 || height == 0 || width > MOST || reader.info().interlaced {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a picture of a screen"));
    }
    let samples = reader.output_color_type().0.samples();
    let (most_wide, most_high) = size.pixels();
    let (wide, taken) = (most_wide.min(width), height.min(width * most_high / most_wide).max(1));
    let high = (taken * wide / width).max(1);

    // Each pixel of the small picture is the mean of those that it stands for.
    let mut sums = vec![[0_u32; 4]; wide * high];
    for y in 0..taken {
        let Some(row) = reader.next_row()? else { break };
        let into = y * high / taken * wide;
        for (x, pixel) in row.data().chunks_exact(samples).take(width).enumerate() {
            let sum = &mut sums[into + x * wide / width];
            let grey = samples < 3;
            for (colour, total) in sum.iter_mut().take(3).enumerate() {
                *total += u32::from(pixel[if grey { 0 } else { colour }]);
            }
            sum[3] += 1;
        }
    }
    let pixels: Vec<u8> =
        sums.iter().flat_map(|[red, green, blue, n]| [red, green, blue].map(|sum| (sum / (*n).max(1)) as u8)).collect();
    let mut jpeg = Vec::new();
    let side = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    let encoder = jpeg_encoder::Encoder::new(&mut jpeg, QUALITY);
    encoder.encode(&pixels, side(wide), side(high), jpeg_encoder::ColorType::Rgb).map_err(io::Error::other)?;
    Ok(jpeg)
}
