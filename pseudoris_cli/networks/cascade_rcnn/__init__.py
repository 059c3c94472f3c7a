"""Cascade Mask R-CNN with a ResNet-FPN (Cai and Vasconcelos, 2018; He et al., 2017; Lin et al., 2017) for inference.

Hyperparameters and tensor names are those of detectron2 0.6 with CutLER's configuration (Wang et al., 2023), so that
CutLER's checkpoints load and its results are reproduced. Boxes are float32 [N, 4] as x0, y0, x1, y1 in pixels of the resized image
unless a name says otherwise; image sizes are (height, width).
"""
