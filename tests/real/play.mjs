// Plays a playlist in a headless Chromium with hls.js and prints what happened as one JSON object.
//
//     node play.mjs CHROMIUM PAGE_URL SEEK_SECONDS
//
// The page is served beside the playlist; see test_browser.py.

import puppeteer from "puppeteer-core";

const [executablePath, page_url, seek] = process.argv.slice(2);
const browser = await puppeteer.launch({
  executablePath,
  headless: true,
  args: ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--disable-gpu"],
});
try {
  const page = await browser.newPage();
  await page.goto(page_url);
  await page.waitForFunction("window.finished !== undefined", { timeout: 60000 });
  const played = await page.evaluate("window.finished");
  const sought = await page.evaluate((to) => window.seekTo(Number(to)), seek);
  console.log(JSON.stringify({ ...played, sought }));
} finally {
  await browser.close();
}
