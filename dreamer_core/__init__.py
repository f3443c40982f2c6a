"""Dreamer XL: text to 3D Gaussian splats by Trajectory Score Matching (arXiv 2405.11252), without ComfyUI.

Frames and units, stated once:

* World: right-handed, Y up, the object's front faces +Z. Lengths are world units; a subject fits the unit ball.
* Camera: OpenCV, X right, Y down, Z forward. `viewmat` [4, 4] takes world to camera; `K` [3, 3] is in pixels;
  the centre of the top left pixel is (0.5, 0.5).
* `azimuth`, `elevation` in degrees: azimuth 0 looks at the front (camera on +Z), 90 puts the camera on +X, 180
  shows the back; elevation 90 looks straight down. Fields of view are over the image height: in degrees in settings,
  in radians in tensors.
* Images: float, [..., H, W, 3], display (sRGB) values in [0, 1]. Latents: [B, C, h, w]; SDXL's [B, 4, H/8, W/8].
* Quaternions are wxyz. `sigma = sqrt((1 - a) / a)` with `a` the cumulative alpha of the noise schedule; a noisy latent
  in variance-exploding (VE) form is `x = z + sigma * noise`.
"""

__version__ = "0.2.0"
